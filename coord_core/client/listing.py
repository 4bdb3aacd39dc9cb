"""What is held in the cluster and by whom, for operators: lists come in parts, which are put together here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord_core.protocol.commands import CloseSession
from coord_core.protocol.locks import ROWS_MAX, ListCursor, ListedLock, ListedSession, LockList, LockRows, SessionList, SessionRows
from coord_core.protocol.queries import SessionInfo, SessionState
from coord_core.types import SessionId

if TYPE_CHECKING:
    from coord_core.client.driver import Driver


@dataclass(frozen=True, slots=True)
class LockListing:
    """Locks and semaphores, in order of their names."""

    rows: tuple[ListedLock, ...]
    #: Pass it as `after` to go on; None: these are all.
    next: ListCursor | None


@dataclass(frozen=True, slots=True)
class SessionListing:
    """Sessions, in order of their numbers."""

    rows: tuple[ListedSession, ...]
    #: Pass it as `after` to go on; None: these are all.
    next: SessionId | None


async def list_locks(driver: "Driver", prefix: str, limit: int, after: ListCursor | None, kinds: Sequence[str]) -> LockListing:
    rows: list[ListedLock] = []
    cursor: ListCursor | None = after or ListCursor()
    while cursor is not None and len(rows) < limit:
        part: LockRows = await driver.ask(LockList(prefix, min(limit - len(rows), ROWS_MAX), cursor, tuple(kinds)))
        rows += part.rows
        cursor = part.next
    return LockListing(tuple(sorted(rows, key=lambda row: row.path)), cursor)


async def list_sessions(driver: "Driver", limit: int, after: int) -> SessionListing:
    rows: list[ListedSession] = []
    more = True
    while more and len(rows) < limit:
        last = rows[-1].session if rows else SessionId(after)
        part: SessionRows = await driver.ask(SessionList(last, min(limit - len(rows), ROWS_MAX)))
        rows += part.rows
        more = part.more and bool(part.rows)
    return SessionListing(tuple(rows), rows[-1].session if more and rows else None)


async def end_session(driver: "Driver", session: SessionId) -> bool:
    state: SessionState = await driver.ask(SessionInfo(session))
    if state.alive:
        await driver.command(CloseSession(session))
    return state.alive
