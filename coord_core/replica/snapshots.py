"""Everything about snapshots on one node: its own, one that arrives, those it sends, and the one it started from.

A node takes a snapshot of its own, leader or not, when enough was applied since the last; with it the log is trimmed to a trailing
window, whoever lags.  A follower that needs what is gone gets the leader's snapshot: `transfer` says how.

The rules:

- One write of this room is on its way to the disk at a time (`Effects.stage`), beside consensus's own.  A snapshot is published
  in the write that trims the log, when all of it is staged and the log reaches it.
- A leader's snapshot is installed in consensus's own write, which replaces the log; consensus hears of it when all of it is staged,
  read and verified.  Until that write is durable the old machine stays; then the new one takes its place.
- Whatever takes long happens in `work`, in slices, between turns: encoding, reading, forgetting what is replaced.
- A leader's snapshot is whole when the records of its topics are here too: which, its machine says.
- What a snapshot says of the cluster is what was in force at its index: the configuration that was applied, never a newer one.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coord_core.machine import Machine, dismantle
from coord_core.protocol.members import Member
from coord_core.raft.messages import InstallSnapshot, SnapshotMetadata
from coord_core.raft.node import RaftNode
from coord_core.raft.state import Role
from coord_core.raft.zero import NOBODY
from coord_core.replica.building import Build
from coord_core.replica.config import SnapshotConfig
from coord_core.replica.facts import Fact, MachineLoaded, SnapshotAbandoned, SnapshotInstalled, SnapshotTaken
from coord_core.replica.receiving import Receiving
from coord_core.replica.sending import ChunkRead, Sending
from coord_core.replica.taking import Taking
from coord_core.replica.transfer import (
    PeerMessage,
    RecordsAsk,
    RecordsPart,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
    TransferMessage,
)
from coord_core.storage.api import Batch, Restored
from coord_core.storage.room import UNMEASURED, Level, Room
from coord_core.storage.snapshots import Chunk, Publish, SnapshotInfo, Staging
from coord_core.types import LogIndex, NodeId, TopicNumber

#: Entries that consensus forgets in one slice: letting go of fifty thousand at once takes longer than a turn should.
COMPACTED_A_SLICE = 4_096

#: On a disk that fills up, a snapshot is not taken for less than this of the log.
EARLY_BYTES = 1024 * 1024

#: Entries between two looks at whether a snapshot is due.
_LOOK_EVERY = 64

#: How often a leader could have offered again before its follower stops waiting for the rest.
_PATIENCE = 20

MakeMachine = Callable[[], Machine]


@dataclass(frozen=True, slots=True)
class Installed:
    """What takes the place of what this node had."""

    machine: Machine
    info: SnapshotInfo


class Snapshots:
    """See the module's text.  The replica owns it, tells it what happened and carries out what it wants."""

    def __init__(self, config: SnapshotConfig, raft: RaftNode, restored: Restored, make_machine: MakeMachine) -> None:
        self._config = config
        self._raft = raft
        self._make_machine = make_machine
        self._next_staging = restored.next_staging
        stored = restored.snapshot
        #: The node's snapshot on its disk, besides the founding.
        self._published: tuple[Staging, SnapshotInfo] | None = None if stored is None else (stored.staging, stored.info)
        self.index: LogIndex = restored.bootstrap.snapshot.index if stored is None else stored.info.metadata.index
        #: Of each topic, up to where this node has its records: shared with `records`.
        self.record_ends: dict[TopicNumber, int] = {}
        #: How much the disk can take.
        self.room: Room = UNMEASURED
        #: Whether anything of all this is under way.  Where nothing is, a turn looks no further.
        self.is_active = stored is not None
        #: The applied index at which to see whether a snapshot is due.
        self.look_at: LogIndex = self.index
        #: The machine that this node started from is being read.
        self._loading: Build | None = None
        if stored is not None:
            self._loading = Build(make_machine())
            for chunk in stored.chunks:
                self._loading.add(chunk)
        self._taking: Taking | None = None
        self._receiving: Receiving | None = None
        #: Consensus has begun anew after it; until its write that says so is durable.
        self._installing: Receiving | None = None
        self._sending = Sending(config, raft)
        #: What follows when the outstanding write is durable; None: none is outstanding.
        self._when_staged: Callable[[], None] | None = None
        #: Stagings that nobody needs, but for those that are being sent.
        self._unneeded: list[Staging] = []
        self._compact_to: LogIndex = LogIndex(0)
        self._replaced: deque[Machine] = deque()
        self._messages: list[PeerMessage] = []
        self._facts: list[Fact] = []

    # --- the machine -------------------------------------------------------------------------------------------------------------

    def first_machine(self) -> Machine:
        """Return the machine that this node begins with, `is_loading` or not."""
        return self._make_machine() if self._loading is None else self._loading.machine

    @property
    def is_loading(self) -> bool:
        """Whether that machine is being read from the snapshot: nothing may be applied."""
        return self._loading is not None

    @property
    def makes_many_objects(self) -> bool:
        """Whether slices of `work` make what stays: a garbage collector would look at it again and again."""
        return self._loading is not None or self._receiving is not None

    # --- events ------------------------------------------------------------------------------------------------------------------

    def hear(self, message: TransferMessage) -> None:
        """Take a message about a transfer.  What is of no use now is dropped: it comes again."""
        self.is_active = True
        if message.term != self._raft.term:
            return
        if isinstance(message, SnapshotAck):
            if self._raft.role is Role.LEADER:
                self._sending.acknowledged(message)
        elif isinstance(message, RecordsAsk):
            self._sending.asked(message.sender)
        elif message.sender == self._raft.leader_id and self._installing is None:
            if isinstance(message, SnapshotOffer):
                self._offered(message)
            elif isinstance(message, SnapshotChunk):
                self._chunk_came(message)
            elif isinstance(message, RecordsPart):
                self._records_came(message)

    def may_step(self, message: InstallSnapshot) -> bool:
        """Whether consensus may hear of a snapshot: it is here, whole, or this node does not need it."""
        metadata = message.metadata
        if metadata.index <= self._raft.commit_index or self._raft.term_at(metadata.index) == metadata.term:
            return True
        receiving = self._receiving
        is_here = receiving is not None and receiving.is_complete and receiving.info.metadata == metadata
        return is_here and self._installing is None and self._when_staged is None

    def wanted(self, message: InstallSnapshot) -> None:
        """Consensus, leading, has nothing but its snapshot for a follower."""
        if self._published is None or self._published[1].metadata.index != message.metadata.index:
            # The founding: nobody lacks it, so the log can go on behind it.
            self._raft.report_snapshot(message.to, ok=True)
            return
        self.is_active = True
        self._sending.begin(message.to, *self._published)

    def role_changed(self) -> None:
        self._sending.end_all()

    def tick(self) -> None:
        self._sending.tick()
        receiving = self._receiving
        if receiving is not None:
            receiving.idle_ticks += 1
            is_needed = receiving.info.metadata.index > self._raft.commit_index
            if not is_needed or receiving.idle_ticks >= _PATIENCE * self._config.retry_ticks:
                # It has found its way without, or the leader that sent it is gone: it must not keep this node from its own.
                self._forget_received()

    def chunk_read(self, read: ChunkRead, chunk: Chunk | None) -> None:
        self._sending.chunk_read(read, chunk)

    def staged(self) -> None:
        """The write of `Effects.stage` is durable."""
        then, self._when_staged = self._when_staged, None
        assert then is not None, "nothing was to be staged"
        then()

    # --- installing --------------------------------------------------------------------------------------------------------------

    def stepped(self) -> bool:
        """Consensus was told of a snapshot: whether it has begun anew after it.  Then what it had handed out is void."""
        if self._raft.installing is None or self._installing is not None:
            return False
        receiving, self._receiving = self._receiving, None
        assert receiving is not None, "a snapshot is installed that is not here"
        assert receiving.is_complete, "a snapshot is installed that is not whole"
        self._installing = receiving
        self._abandon_own("the leader's is installed")
        return True

    def publish_installed(self, metadata: SnapshotMetadata) -> Publish:
        """Return what the write of consensus that begins anew after `metadata` must publish."""
        installing = self._installing
        assert installing is not None, "a snapshot is written that was not stepped"
        assert installing.info.metadata == metadata, "another snapshot is written than the one that was stepped"
        return Publish(installing.staging, installing.info, metadata.index, metadata.term, replaces_log=True)

    def installed(self, former: Machine) -> Installed | None:
        """A write of consensus is durable: return what takes the place of `former`, if it was an install."""
        receiving = self._installing
        if receiving is None or self._raft.installing is not None:
            return None
        self._installing = self._loading = None
        self._replaced.append(former)
        self._publish(receiving.staging, receiving.info)
        self._compact_to = LogIndex(0)
        self._facts.append(SnapshotInstalled(self.index, receiving.info.size))
        return Installed(receiving.build.machine, receiving.info)

    # --- a turn ------------------------------------------------------------------------------------------------------------------

    def begin_if_due(self, machine: Machine, members: Iterable[Member]) -> None:
        """Begin a snapshot of the state as it is, if enough was applied since the last."""
        index = self._raft.applied_index
        self.look_at = LogIndex(index + min(self._config.entries, _LOOK_EVERY))
        if self._taking is not None or not self._is_due():
            return
        self.is_active = True
        term = self._raft.term_at(index)
        assert term is not None, "the last entry applied is held"
        metadata = SnapshotMetadata(index, term, self._raft.configuration)
        self._taking = Taking(self._config, self._draw_staging(), metadata, tuple(members), machine)

    def take_messages(self) -> list[PeerMessage]:
        messages = [*self._messages, *self._sending.messages]
        self._messages.clear()
        self._sending.messages.clear()
        return messages

    def take_reads(self) -> list[ChunkRead]:
        reads = self._sending.reads.copy()
        self._sending.reads.clear()
        return reads

    def take_facts(self) -> list[Fact]:
        facts = [*self._facts, *self._sending.facts]
        self._facts.clear()
        self._sending.facts.clear()
        return facts

    def take_write(self) -> Batch | None:
        """Return the next write, if none is on its way."""
        if self._when_staged is not None:
            return None
        return self._write_received() or self._write_own() or self._write_discard()

    def write_of_others(self) -> Batch | None:
        """Return an empty write for whoever has something to be stored, if none is on its way."""
        if self._when_staged is not None:
            return None
        self._when_staged = _nothing
        self.is_active = True
        return Batch()

    @property
    def is_sending(self) -> bool:
        """Whether a snapshot is on its way to a follower, with the records that it names."""
        return self._sending.is_active

    def rest(self) -> None:
        """Note whether anything is left under way."""
        under_way = (self._taking, self._receiving, self._installing, self._when_staged)
        self.is_active = self.has_output or self.has_work or self._sending.is_active or any(each is not None for each in under_way)

    @property
    def has_output(self) -> bool:
        """Whether a turn would carry something out for this room."""
        if self._messages or self._facts or self._sending.has_output:
            return True
        return self._when_staged is None and self._has_write()

    # --- between turns -----------------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return (
            self._loading is not None
            or bool(self._replaced)
            or self._raft.first_index <= self._compact_to
            or (self._receiving is not None and self._receiving.build.has_work)
            or (self._taking is not None and self._taking.has_work)
        )

    def work(self, items: int) -> None:
        """Do about so many items of what `has_work` is about."""
        if self._loading is not None:
            self._load(self._loading, items)
        elif self._receiving is not None and self._receiving.build.has_work:
            self._receiving.build.step(items)
            self._acknowledge(self._receiving)
        elif self._raft.first_index <= self._compact_to:
            self._raft.compact(LogIndex(min(self._compact_to, self._raft.first_index - 1 + COMPACTED_A_SLICE)))
        elif self._taking is not None and self._taking.has_work:
            self._taking.step(items)
        elif self._replaced and not dismantle(self._replaced[0], items):
            self._replaced.popleft()

    def _load(self, loading: Build, items: int) -> None:
        if loading.has_work:
            loading.step(items)
        if not loading.has_work:
            loading.finish()
            self._loading = None
            self._facts.append(MachineLoaded(self.index))

    # --- its own -----------------------------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        if self._loading is not None or self._receiving is not None or self._installing is not None:
            return False
        if self._when_staged is not None:
            return False
        config, entries = self._config, self._raft.applied_index - self.index
        if not entries:
            return False
        size = self._raft.bytes_since(self.index)
        if self.room.level is not Level.AMPLE:
            return self._is_worth_its_room(size)
        if entries < config.entries and size < config.bytes:
            return False
        return self._published is None or size >= self._published[1].size

    def _is_worth_its_room(self, size: int) -> bool:
        """Whether to take a snapshot on a disk that fills up, with so many bytes in the log since the last.

        It takes room before it gives any back (what is trimmed is used again by the log, the file does not shrink).  So it is taken
        early where it gives much and takes little, and not at all where it might take the rest.
        """
        takes = size if self._published is None else 2 * self._published[1].size
        gives_much = size >= EARLY_BYTES and (self._published is None or size >= 4 * self._published[1].size)
        return gives_much and self._fits(takes)

    def _fits(self, size: int) -> bool:
        """Whether the disk has room for so many bytes of a snapshot, and some more."""
        room = self.room
        return room.level is Level.AMPLE or (room.level is Level.LOW and 2 * size + EARLY_BYTES <= room.free_bytes)

    def _write_own(self) -> Batch | None:
        taking = self._taking
        if taking is None:
            return None
        if taking.has_chunks:
            self._when_staged = _nothing
            return Batch(stage=taking.take())
        if not taking.is_encoded or self._raft.durable_index < taking.metadata.index:
            return None
        return self._write_publish(taking)

    def _write_publish(self, taking: Taking) -> Batch:
        config, info = self._config, taking.info()
        trailing = self._raft.trailing_index(config.trailing_entries, config.trailing_bytes)
        log_index = LogIndex(min(info.metadata.index, trailing))
        log_term = self._raft.term_at(log_index)
        assert log_term is not None, "what is kept is held"
        self._when_staged = lambda: self._taken(taking, info, log_index)
        return Batch(publish=Publish(taking.staging, info, log_index, log_term))

    def _taken(self, taking: Taking, info: SnapshotInfo, log_index: LogIndex) -> None:
        assert self._taking is taking, "a snapshot is not given up while it is published"
        self._taking = None
        self._publish(taking.staging, info)
        self._raft.snapshot_taken(info.metadata)
        self._compact_to = log_index
        self._facts.append(SnapshotTaken(self.index, info.size, log_index))

    def abandon_if_too_much(self) -> None:
        if self._taking is None:
            return
        if self.room.level is Level.FULL and not self._taking.is_encoded:
            self._abandon_own("the disk is full")
        elif self._taking.is_too_much:
            self._abandon_own("the disk does not take it as fast as the state changes")

    def _abandon_own(self, reason: str) -> None:
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.abandon()
            self._unneeded.append(taking.staging)
            self._facts.append(SnapshotAbandoned(taking.metadata.index, reason))

    # --- the leader's ------------------------------------------------------------------------------------------------------------

    def _offered(self, message: SnapshotOffer) -> None:
        info = message.info
        if info.metadata.index <= self._raft.commit_index:
            # Not needed any more; the leader learns it from consensus.
            self._say(message.sender, info.sha256, info.chunks)
            return
        if not self._fits(info.size):
            # It is offered again.
            return
        if self._when_staged is not None and self._receiving is None:
            # What is being written belongs to a snapshot that would be given up.
            return
        if self._receiving is None or self._receiving.info.sha256 != info.sha256:
            self._begin_receiving(info)
        receiving = self._receiving
        assert receiving is not None, "it has just begun"
        receiving.resumed_at = -1
        receiving.idle_ticks = 0
        self._resume(receiving)

    def _begin_receiving(self, info: SnapshotInfo) -> None:
        self._abandon_own("the leader's arrives")
        self._forget_received()
        self._receiving = Receiving(info, self._draw_staging(), self._make_machine())

    def _forget_received(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            self._unneeded.append(receiving.staging)
            self._replaced.append(receiving.build.machine)

    def _chunk_came(self, message: SnapshotChunk) -> None:
        receiving = self._receiving
        if receiving is None or message.sha256 != receiving.info.sha256 or message.seq < receiving.accepted:
            return
        receiving.idle_ticks = 0
        if not receiving.take_in(message):
            self._resume(receiving)

    def _write_received(self) -> Batch | None:
        receiving = self._receiving
        if receiving is not None and receiving.part is not None:
            return self._write_records(receiving, receiving.part)
        if receiving is None or not receiving.has_chunks:
            return None
        chunks = receiving.take(self._config.stage_bytes)
        self._when_staged = lambda: self._received(receiving, len(chunks))
        return Batch(stage=chunks)

    def _received(self, receiving: Receiving, count: int) -> None:
        receiving.staged(count)
        if receiving is self._receiving:
            self._acknowledge(receiving)

    def _acknowledge(self, receiving: Receiving) -> None:
        """Tell the leader of progress; when everything is here, whether it is right."""
        if receiving.has_arrived and not receiving.is_verified:
            if not receiving.verify():
                # Good chunks of different snapshots, or a leader's fault: the next offer begins anew.
                self._forget_received()
                return
            receiving.look_for_missing(self.record_ends)
        if receiving.is_verified and not receiving.is_complete:
            self._ask_records(receiving)
        elif receiving.safe > receiving.acknowledged:
            receiving.acknowledged = receiving.safe
            self._say(self._raft.leader_id, receiving.info.sha256, receiving.safe)

    def _resume(self, receiving: Receiving) -> None:
        """Say where to go on: behind the last chunk that came in order."""
        if receiving.is_complete:
            self._say(self._raft.leader_id, receiving.info.sha256, receiving.info.chunks)
        elif receiving.is_verified:
            self._ask_records(receiving)
        elif receiving.resumed_at < receiving.accepted < receiving.info.chunks:
            receiving.resumed_at = receiving.accepted
            self._say(self._raft.leader_id, receiving.info.sha256, receiving.safe, receiving.accepted)

    # --- the records that belong to it --------------------------------------------------------------------------------------------

    def _ask_records(self, receiving: Receiving) -> None:
        """Ask for the next records that are missing, unless some are on their way to the disk."""
        leader, own = self._raft.leader_id, self._raft.node_id
        if receiving.part is None and receiving.missing and leader not in (NOBODY, own):
            topic, offset, end = receiving.missing[0]
            ask = RecordsAsk(
                sender=own, to=leader, term=self._raft.term, sha256=receiving.info.sha256, topic=topic, offset=offset, end=end
            )
            self._messages.append(ask)

    def _records_came(self, message: RecordsPart) -> None:
        receiving = self._receiving
        if receiving is not None and message.sha256 == receiving.info.sha256 and receiving.take_in_records(message):
            receiving.idle_ticks = 0

    def _write_records(self, receiving: Receiving, part: RecordsPart) -> Batch:
        self._when_staged = lambda: self._records_staged(receiving, part)
        return Batch(records=[(part.topic, record) for record in part.records])

    def _records_staged(self, receiving: Receiving, part: RecordsPart) -> None:
        # They are facts, whatever becomes of the snapshot.
        self.record_ends[part.topic] = max(self.record_ends.get(part.topic, 0), part.next)
        if receiving is self._receiving:
            receiving.records_staged()
            self._acknowledge(receiving)

    def _say(self, to: NodeId, sha256: bytes, safe: int, resume: int | None = None) -> None:
        if to in (NOBODY, self._raft.node_id):
            # Whoever leads next offers its own.
            return
        own, term = self._raft.node_id, self._raft.term
        self._messages.append(SnapshotAck(sender=own, to=to, term=term, sha256=sha256, safe=safe, resume=resume))

    # --- what is not needed any more ---------------------------------------------------------------------------------------------

    def _publish(self, staging: Staging, info: SnapshotInfo) -> None:
        """The snapshot is on the disk as the node's own."""
        if self._published is not None:
            self._unneeded.append(self._published[0])
        self._published = (staging, info)
        self.index = info.metadata.index

    def _write_discard(self) -> Batch | None:
        discard = self._discardable()
        if not discard:
            return None
        self._unneeded = [staging for staging in self._unneeded if staging not in discard]
        self._when_staged = _nothing
        return Batch(discard=discard)

    def _discardable(self) -> list[Staging]:
        in_use = self._sending.in_use()
        return [staging for staging in self._unneeded if staging not in in_use]

    def _has_write(self) -> bool:
        taking = self._taking
        if self._receiving is not None and (self._receiving.has_chunks or self._receiving.part is not None):
            return True
        if taking is not None and (taking.has_chunks or (taking.is_encoded and self._raft.durable_index >= taking.metadata.index)):
            return True
        return bool(self._discardable())

    def _draw_staging(self) -> Staging:
        staging = self._next_staging
        self._next_staging = Staging(staging + 1)
        return staging


def _nothing() -> None:
    """Nothing follows."""
