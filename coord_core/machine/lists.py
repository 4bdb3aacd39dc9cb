"""Lists of what there is, a part at a time, so that no answer is large and none takes long.

The table of names is in shards (`names`), and a list follows it: shard by shard, in each by name.  To sort two million names for
every part would stop the node; so a part looks at NAMES_LISTED_MAX names, finds what it finds, and says where to go on.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from coord_core.machine.bounds import NAMES_LISTED_MAX
from coord_core.machine.detached import Detached
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import Registry
from coord_core.machine.sessions import Session, Sessions
from coord_core.protocol.locks import (
    ROWS_MAX,
    ListCursor,
    ListedDetached,
    ListedLock,
    ListedSession,
    LockList,
    LockRows,
    SessionList,
    SessionRows,
)

#: How what is bound to a path is told, by its type.
Listed: TypeAlias = Mapping[type[Named], Callable[[str, Any], ListedLock]]


def list_locks(names: Names, listed: Listed, query: LockList) -> LockRows:
    shards, rows, looked_at = names.shards(), [], 0
    most = max(1, min(query.rows_max, ROWS_MAX))
    number, after = max(0, query.after.shard), query.after.after
    listed = {kind: tell for kind, tell in listed.items() if kind.kind in query.kinds}
    for shard in range(number, len(shards)):
        found = shards[shard]
        for path in sorted(path for path in found if path > after and path.startswith(query.prefix)):
            tell = listed.get(type(found[path]))
            if tell is None:
                continue
            rows.append(tell(path, found[path]))
            if len(rows) >= most:
                return LockRows(tuple(rows), ListCursor(shard, path))
        after = ""
        looked_at += len(found)
        if looked_at >= NAMES_LISTED_MAX and shard + 1 < len(shards):
            return LockRows(tuple(rows), ListCursor(shard + 1))
    return LockRows(tuple(rows), None)


def list_sessions(sessions: Sessions, registry: Registry, query: SessionList, time_ms: int) -> SessionRows:
    most = max(1, min(query.rows_max, ROWS_MAX))
    numbers = sorted(session.id for session in sessions if session.id > query.after)
    found = [sessions.get(number) for number in numbers[:most]]
    return SessionRows(tuple(_row(session, registry, time_ms) for session in found if session is not None), len(numbers) > most)


def _row(session: Session, registry: Registry, time_ms: int) -> ListedSession:
    attachments = session.attachments
    owner = next((attachment.owner for attachment in attachments.values()), None)
    holdings = sum(registry.holdings(attachment) for attachment in attachments.values())
    detached = next((_detached(it.detached, time_ms) for it in attachments.values() if it.detached is not None), None)
    return ListedSession(session.id, owner, len(attachments), holdings, session.ttl_ms, detached=detached)


def _detached(detached: Detached, time_ms: int) -> ListedDetached:
    until_ms, attempt = detached.held_until_ms, detached.attempt
    held_ms = None if until_ms is None else max(0, until_ms - time_ms)
    return ListedDetached(detached.name, attempt.number, attempt.instance, detached.superseded, held_ms)
