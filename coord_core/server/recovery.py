"""Out of the directory of one node, a new cluster of that node alone: for when the majority of a cluster is gone for good.

The rule: nothing is guessed and nothing is hidden.  The new cluster is another one, under an id of its own, in a directory of
its own: a node or a client of the old one is refused by it, for what it was told may not be in here.  What is in the log of the
one that is left counts, also what was not known to be committed: it may have been acknowledged.
"""

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coord_core.errors import InvalidRequest, NodeSuspect, StorageCorrupt
from coord_core.machine import Machine
from coord_core.machine.bounds import NUMBER_MAX
from coord_core.protocol.members import Member
from coord_core.raft.membership import changed, decode
from coord_core.raft.messages import Configuration, Entry, EntryKind, HardState, SnapshotMetadata
from coord_core.replica import SnapshotConfig, unstamp
from coord_core.replica.building import Build
from coord_core.replica.membership import everyone, members_of
from coord_core.replica.taking import Taking
from coord_core.storage.api import Batch, Bootstrap, Identity, Restored
from coord_core.storage.directory import DATABASE
from coord_core.storage.records import Stored
from coord_core.storage.snapshots import FIRST_STAGING, Publish
from coord_core.storage.sqlite import SqliteStorage
from coord_core.storage.suspect import acquit, condemn
from coord_core.types import LogIndex, NodeId, Term

#: Rows read or written in one step; nobody waits meanwhile.
_ITEMS = 10_000
#: Bytes of records copied in one step.
_RECORD_BYTES = 4 * 1024 * 1024
_FOUNDER = NodeId(1)

#: How far behind the old log's end the new one begins.  Tokens, epochs, versions and revisions are log indexes: what only the lost
#: nodes had may have been given out above that end, and must never be given out again.  Numbers stay below 2**53, so a cluster can
#: be recovered eight thousand times.
GAP = 2**40


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came out of it."""

    name: str
    former_cluster: str
    cluster: str
    #: The last entry of the old log: everything up to it is in the new cluster.
    index: LogIndex
    #: Up to here the node had known the log to be committed.
    committed: LogIndex
    sessions: int
    #: The names of the old cluster's other nodes, as of that last entry.
    lost: tuple[str, ...]
    #: Why another node's directory should be taken where one is left; empty where nothing speaks against this one.
    doubt: str = ""


def recover(source: Path, target: Path) -> Recovered:
    """Make `target` the directory of a new cluster's only node, with all that `source` has.  `source` stays as it is.

    Raises `InvalidRequest` where one of them is not what it must be, `DataDirInUse` where a node runs on it, `StorageCorrupt` where
    `source` is damaged, `NodeSuspect` where its node knew that it must not go on.
    """
    if not (source / DATABASE).exists():
        raise InvalidRequest(f"{source} holds no node: name the data directory of one that is left")
    if target.exists() and any(target.iterdir()):
        raise InvalidRequest(f"{target} is not empty: the new cluster needs a directory of its own")
    with _opened(source) as (storage, restored):
        machine, fresh = _machine_of(restored)
        metadata = _end_of(restored)
        bootstrap = _founding(restored, metadata)
        _write(target, bootstrap, metadata, restored.hard_state, machine, _records(storage, machine, fresh))
    own = restored.bootstrap.identity
    configuration = _configuration_at_the_end(restored)
    in_force = {node: member for node, member in _all_members(restored).items() if node in everyone(configuration)}
    return Recovered(
        name=own.name,
        former_cluster=own.cluster_id,
        cluster=bootstrap.identity.cluster_id,
        index=LogIndex(metadata.index - GAP),
        committed=restored.hard_state.commit,
        sessions=machine.session_count(),
        # While a node is replaced there are two of its name.
        lost=tuple(dict.fromkeys(member.name for node, member in sorted(in_force.items()) if node != own.node_id)),
        doubt=_doubt(own, configuration, LogIndex(metadata.index - GAP)),
    )


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[SqliteStorage, Restored]]:
    """What a node is told that finds its directory damaged, or knows that it must not go on, does not help here."""
    try:
        storage = SqliteStorage(source)
        try:
            restored = storage.load()
            if restored is None:
                raise InvalidRequest(f"{source} holds a node that was never part of a cluster: there is nothing to recover")
            yield storage, restored
        finally:
            storage.close()
    except (StorageCorrupt, NodeSuspect) as error:
        what = error.message.partition(" This node must not ")[0].rstrip(".")
        raise type(error)(
            f"nothing is made of {source}: {what}.  Take the directory of another node that is left, or a backup of one, with "
            "all of its files",
            **error.details,
        ) from error


def _machine_of(restored: Restored) -> tuple[Machine, list[Stored]]:
    """Return the state after all stored entries, and the records that they published."""
    machine, fresh = Machine(), list[Stored]()
    if restored.snapshot is not None:
        build = Build(machine)
        for chunk in restored.snapshot.chunks:
            build.add(chunk)
            while build.has_work:
                build.step(_ITEMS)
        build.finish()
        done = restored.snapshot.info.metadata.index
    else:
        done = restored.bootstrap.snapshot.index
    for entry in restored.entries:
        if entry.index > done and entry.kind == EntryKind.COMMAND and entry.data:
            fresh += machine.apply(entry.index, *unstamp(entry.data)).records
    return machine, fresh


def _records(storage: SqliteStorage, machine: Machine, fresh: Sequence[Stored]) -> Iterator[list[Stored]]:
    """Yield the records of all topics, a few at a time: what is stored, and what is only in the log.

    Both may have some; and what is stored beyond the end belongs to a snapshot that never arrived wholly.
    """
    for topic, earliest, end in machine.logs.ranges():
        offset = earliest
        while found := storage.read_records(topic, offset, _ITEMS, _RECORD_BYTES) if offset < end else []:
            offset = found[-1].offset + 1
            yield [(topic, record) for record in found if record.offset < end]
    known = {topic: range(earliest, end) for topic, earliest, end in machine.logs.ranges()}
    yield [(topic, record) for topic, record in fresh if record.offset in known.get(topic, ())]


def _all_members(restored: Restored) -> dict[NodeId, Member]:
    """Return whoever is known, as of the last entry; also some that were removed, and this node in any case."""
    found = {member.node_id: member for member in (*restored.bootstrap.members, *restored.members)}
    for entry in _changes(restored):
        found |= {member.node_id: member for member in members_of(entry)}
    return found


def _configuration_at_the_end(restored: Restored) -> Configuration:
    """Return what was in force in the old cluster after all stored entries."""
    snapshot = restored.bootstrap.snapshot if restored.snapshot is None else restored.snapshot.info.metadata
    configuration = snapshot.configuration
    for entry in _changes(restored):
        configuration = changed(configuration, decode(entry.data))
    return configuration


def _doubt(own: Identity, configuration: Configuration, index: LogIndex) -> str:
    """Return why the node may lack what was acknowledged, whatever else its log says."""
    if own.node_id in (*configuration.voters, *configuration.outgoing):
        return ""
    if own.node_id in everyone(configuration):
        return f"{own.name} was no voter: it may lack what the old cluster had acknowledged"
    if own.node_id > index:
        return f"{own.name} had not even come to the entry {own.node_id} that let it in: all that came later is not here"
    return f"{own.name} had been removed from the old cluster, which went on without it: what it did then is not here"


def _changes(restored: Restored) -> list[Entry]:
    """Return the membership changes after the snapshot."""
    done = restored.bootstrap.snapshot.index if restored.snapshot is None else restored.snapshot.info.metadata.index
    return [entry for entry in restored.entries if entry.index > done and entry.kind == EntryKind.CONFIGURATION]


def _end_of(restored: Restored) -> SnapshotMetadata:
    if restored.entries:
        index, term = restored.entries[-1].index, restored.entries[-1].term
    elif restored.snapshot is not None:
        index, term = restored.snapshot.info.metadata.index, restored.snapshot.info.metadata.term
    else:
        index, term = restored.bootstrap.snapshot.index, restored.bootstrap.snapshot.term
    if index + 2 * GAP > NUMBER_MAX:
        raise InvalidRequest(f"the log has come to {index}, after too many recoveries: copy what is in it into a new cluster")
    # Behind the old log: the new cluster's founding lies before it, and no entry of the old one has its place.
    return SnapshotMetadata(LogIndex(index + GAP), term, Configuration((_FOUNDER,)))


def _founding(restored: Restored, metadata: SnapshotMetadata) -> Bootstrap:
    own = restored.bootstrap.identity
    known = _all_members(restored)[own.node_id]
    identity = Identity(secrets.token_hex(16), _FOUNDER, own.name, secrets.token_hex(16))
    member = Member(_FOUNDER, own.name, known.peer_address, known.client_address, identity.incarnation, known.machine_version)
    return Bootstrap(identity, (member,), SnapshotMetadata(LogIndex(1), Term(1), metadata.configuration))


def _write(
    target: Path,
    bootstrap: Bootstrap,
    metadata: SnapshotMetadata,
    state: HardState,
    machine: Machine,
    records: Iterable[list[Stored]],
) -> None:
    taking = Taking(SnapshotConfig(), FIRST_STAGING, metadata, bootstrap.members, machine)
    storage = SqliteStorage(target)
    try:
        # Half of it would run as a cluster that is empty, and give out old fencing tokens again.
        condemn(target, "coord recover was cut off before this directory was whole; remove it and begin again")
        storage.form(bootstrap)
        while not taking.is_encoded:
            taking.step(_ITEMS)
            while taking.has_chunks:
                storage.write(Batch(stage=taking.take()))
        for some in records:
            storage.write(Batch(records=some))
        publish = Publish(taking.staging, taking.info(), metadata.index, metadata.term, replaces_log=True)
        storage.write(
            Batch(hard_state=HardState(state.term, NodeId(0), metadata.index), publish=publish, records_index=metadata.index)
        )
    finally:
        storage.close()
    acquit(target)
