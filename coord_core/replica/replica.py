"""The face of a replica, and the order of things in a turn.

A driver's duties:

1. Hand in what has arrived (`receive`, `request`, `persisted`, ...), then call `turn` with its monotonic clock, soon.
2. Carry out the effects: send and answer at once; write `batch()` in one transaction and then call `persisted` with the ack of
   `persist`.  There is at most one such write outstanding.  Messages that depend on a write come out of a later turn by themselves.
3. Write `stage` in a transaction of its own, then call `staged`; at most one is outstanding.  Read `reads` and call
   `chunk_read` for each.  Writes and reads are done one after the other, in the order in which they came out.  Read `record_reads`
   and call `records_read`; these may run beside them, in any order.
4. Call `tick` every `tick_ms`; ticks that were missed are not made up for.
5. Between turns call `work` as long as it says that there is more, but for no longer than a turn may take.
6. When writing fails, or a turn raises, stop: the replica must not be used again.
7. Say `disk_room` when the disk's room has changed.

A turn drains the control lane, then the command lane, proposes, takes what consensus gives, applies it, serves confirmed reads.
What only a leader does is in `leading`; all about snapshots in `snapshots`.

*Nobody waits for this node to apply.*  Where a turn has something to send or to write, it leaves what was committed to the next
turn (`must_apply`), so that the others and the disk are at work meanwhile.  A follower waits with applying until its write is
durable and acknowledged: its own answer is on the way of every command, its state machine is not.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coord_core.errors import CoordError
from coord_core.machine import Applied, Machine
from coord_core.protocol.commands import LEADERS_OWN, Call, Command, ExpireSession, SetMachineVersion, Tick
from coord_core.protocol.locks import LockBroken
from coord_core.protocol.members import Member
from coord_core.protocol.messages import (
    Acknowledge,
    Administer,
    Ask,
    Follow,
    KeepAlive,
    KeptAlive,
    PeerIdentity,
    Redirect,
    Reply,
    ServerMessage,
    Submit,
    Told,
)
from coord_core.protocol.parking import ParkingFetch
from coord_core.protocol.results import Failed
from coord_core.protocol.streams import Announced, Joined
from coord_core.protocol.topics import TopicFetch, TopicRecord
from coord_core.raft.messages import Append, Configuration, Entry, EntryKind, InstallSnapshot, Message
from coord_core.raft.node import RaftNode
from coord_core.raft.outbox import Persist, PersistAck
from coord_core.raft.refusals import ProposalBusy, Transferring
from coord_core.raft.state import Role
from coord_core.raft.zero import START
from coord_core.replica.comparing import COMPARE_EVERY, Comparison
from coord_core.replica.config import ReplicaConfig
from coord_core.replica.entries import stamp, unstamp
from coord_core.replica.facts import Fact, LeaderReady, RoleChanged, SessionsEnded, Stalled
from coord_core.replica.fetches import Fetches, RecordRead
from coord_core.replica.lanes import CommandLane, Proposal, is_control
from coord_core.replica.leading import Leading
from coord_core.replica.leases import STALL_MS, LeaseClock
from coord_core.replica.membership import Membership
from coord_core.replica.pending import Origin, Pending
from coord_core.replica.reads import ExpiryCheck, Question, Reads, Renewal
from coord_core.replica.records import Records, Taken
from coord_core.replica.sending import ChunkRead
from coord_core.replica.snapshots import Installed, MakeMachine, Snapshots
from coord_core.replica.space import Space
from coord_core.replica.telling import Telling
from coord_core.replica.transfer import (
    PeerMessage,
    RecordsAsk,
    RecordsPart,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
    TransferMessage,
)
from coord_core.replica.vitals import Vitals, VitalSigns
from coord_core.storage.api import Batch, Restored
from coord_core.storage.room import Level, Room
from coord_core.storage.snapshots import Chunk, Publish
from coord_core.types import LogIndex, NodeId, SessionId, Term, TopicNumber
from coord_core.wire.codec import decode_command, encode_command

#: Entries applied in one turn; a node that catches up answers heartbeats in between.
TURN_ENTRIES_MAX = 4_096

#: What consensus may hear of only when the bytes are here, and what it never hears of.
_ABOUT_SNAPSHOTS = frozenset({InstallSnapshot, SnapshotOffer, SnapshotChunk, SnapshotAck, RecordsAsk, RecordsPart})


@dataclass(slots=True)
class Effects:
    """What the driver must carry out."""

    persist: Persist | None = None
    #: Goes into the same transaction as `persist`: a leader's snapshot takes the place of the log.
    publish: Publish | None = None
    #: Snapshots' own writes.
    stage: Batch | None = None
    reads: Sequence[ChunkRead] = ()
    #: Go into the same transaction as `persist`: records of topics that were applied before.
    taken: Taken | None = None
    record_reads: Sequence[RecordRead] = ()
    send: list[PeerMessage] = field(default_factory=list)
    replies: list[tuple[int, ServerMessage]] = field(default_factory=list)
    #: For connections as well, but no answers: what happened to that to which they are subscribed.  Comes after `replies`.
    pushes: list[tuple[int, ServerMessage]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    #: Whom to be connected with from now on, and as of which applied entry; None where that did not change.  Comes before `send`.
    members: tuple[Member, ...] | None = None
    members_index: LogIndex = START
    #: Nodes that asked to be let in and cannot be, with why.
    turned_away: Sequence[tuple[PeerIdentity, CoordError]] = ()

    def batch(self) -> Batch | None:
        """Return the transaction that `persist` asks for."""
        persist = self.persist
        if persist is None:
            return None
        return _with_records(Batch(persist.entries, persist.hard_state, publish=self.publish), self.taken)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What a node knows of itself: immutable, to be read by anyone."""

    role: str
    term: Term
    leader: Member | None
    #: Of the configuration in force.
    members: tuple[Member, ...]
    configuration: Configuration
    commit_index: LogIndex
    applied_index: LogIndex
    last_index: LogIndex
    sessions: int
    #: Whether this node leads and takes commands.
    ready: bool
    #: Of the node's last snapshot, and of the first entry of its log.
    snapshot_index: LogIndex
    first_index: LogIndex
    #: Up to here this node knows the log to be committed, also after a crash.
    durable_commit: LogIndex
    #: Why this leader refuses new commands (want of room on the disks); empty where it takes them, or does not lead.
    refuses: str = ""


class Replica:
    """See the module's text for the driver's duties."""

    def __init__(
        self, config: ReplicaConfig, restored: Restored, *, rng: random.Random, now_ms: int, make_machine: MakeMachine = Machine
    ) -> None:
        self._config = config
        stored = restored.snapshot
        self._raft = RaftNode(
            config.raft,
            hard_state=restored.hard_state,
            snapshot=restored.bootstrap.snapshot if stored is None else stored.info.metadata,
            entries=restored.entries,
            rng=rng,
            begin=None if stored is None else (stored.log_index, stored.log_term),
        )
        self._snapshots = Snapshots(config.snapshots, self._raft, restored, make_machine)
        #: Not to be looked at while it `is_loading`.
        self.machine = self._snapshots.first_machine()
        self._membership = Membership(self._raft, restored.members)
        #: What the driver was told of them.
        self._told_members = self._membership.members
        self._signs = VitalSigns(self._raft)
        self._records = Records(restored.held)
        self._fetches = Fetches(self._records)
        self._snapshots.record_ends = self._records.ends
        self._space = Space(self._raft, self._signs)
        self._comparison = Comparison(self._raft.node_id)
        self._applied: LogIndex = self._snapshots.index
        limits = config.lanes
        self._messages: deque[PeerMessage] = deque()
        self._control = CommandLane(limits.control_requests_max, limits.command_bytes_max)
        self._commands = CommandLane(limits.commands_max, limits.command_bytes_max)
        self._reads = Reads()
        self._pending = Pending()
        self._telling = Telling(self._config.pushed_records_max)
        self._lease_clock = LeaseClock(now_ms)
        self._leading: Leading | None = None
        #: Sessions found dead in a confirmed round, to be expired by this turn's or the next turn's proposal.
        self._dead: list[SessionId] = []
        #: What this node proposed and has decoded already: (index, term, command), rising.
        self._proposed: deque[tuple[LogIndex, Term, Command]] = deque()
        self._refusals: list[tuple[int, ServerMessage]] = []
        self._last_turn_ms = now_ms
        self._known_role: tuple[Role, Term, NodeId] = self._role()
        self._ticks = 0
        #: Committed, in order, and not applied yet.
        self._waiting: list[Entry] = []
        #: A follower's write is on the disk's way: what waits to be applied waits for its acknowledgement.
        self._held = False
        if self._need_not_wait(restored.bootstrap.snapshot.index):
            self._raft.campaign()

    def _need_not_wait(self, founded: LogIndex) -> bool:
        """Whether nobody else can lead now: a lone voter, or the first founder of a cluster that has no entry yet."""
        voters = self._raft.configuration.voters
        return voters[:1] == (self._raft.node_id,) and (len(voters) == 1 or self._raft.last_index == founded)

    # --- events -------------------------------------------------------------------------------------------------------------------

    def receive(self, message: PeerMessage) -> None:
        """A peer's message arrived.  Beyond the bound it is dropped, as a network would: the sender repeats it."""
        if len(self._messages) < self._config.lanes.peer_messages_max:
            self._messages.append(message)

    def follow(self, connection: int, message: Follow) -> None:
        """A connection follows a subscription from now on; what there is to push is among some turn's pushes."""
        self._telling.follow(connection, message)

    def acknowledge(self, connection: int, message: Acknowledge) -> None:
        """A connection has worked off what was pushed to it."""
        self._telling.acknowledge(connection, message)

    def request(self, connection: int, message: Submit | KeepAlive | Ask | Administer) -> None:
        """A client's request arrived; its answer is among some turn's replies."""
        origin = (connection, message.seq)
        if type(message) is Submit:
            self._submit(origin, bytes(message.command))
        elif type(message) is KeepAlive:
            self._queue_read(Renewal(origin, message.session, message.generation))
        elif type(message) is Ask:
            self._queue_read(Question(origin, message.query))
        elif type(message) is Administer and (refusal := self._membership.ask(origin, message.request)) is not None:
            self._refusals.append((connection, refusal))

    def join(self, caller: PeerIdentity) -> None:
        """A node asks to be let in, or says that it has moved.  When it is so, `Effects.members` has it as it said; where this node
        leads and refuses it, `Effects.turned_away`.
        """
        self._membership.join(caller)

    def transfer_leadership(self, to: NodeId) -> None:
        """Hand leadership to another voter.  Raises `NotLeaderError`, `TransferRefused`."""
        self._raft.transfer(to)

    def connection_closed(self, connection: int) -> None:
        """A client's connection is gone.  What it asked stays asked: its session, not its connection, owns it."""
        self._telling.connection_closed(connection)

    def leader_connection_lost(self, peer: NodeId) -> None:
        """The connection to `peer` closed; where it leads, this node need not wait for its silence."""
        if peer == self._raft.leader_id and self._raft.role is not Role.LEADER:
            self._raft.leader_lost()

    def unreachable(self, peer: NodeId) -> None:
        """Sending to `peer` failed."""
        self._raft.unreachable(peer)

    def persisted(self, ack: PersistAck) -> None:
        """The write of `Effects.persist` is durable."""
        self._held = False
        self._raft.persisted(ack)
        self._records.stored("persist")
        if self._snapshots.is_active and (installed := self._snapshots.installed(self.machine)) is not None:
            self._begin_anew(installed)

    def _begin_anew(self, installed: Installed) -> None:
        """A leader's snapshot is on the disk in place of everything before: go on from it."""
        metadata = installed.info.metadata
        self.machine = installed.machine
        self._membership.installed(installed.info.members, metadata.index)
        self._applied = metadata.index
        self._raft.applied(metadata.index)
        self._records.begin_anew(self.machine)

    def staged(self) -> None:
        """The write of `Effects.stage` is durable."""
        self._records.stored("stage")
        self._snapshots.staged()

    def disk_room(self, room: Room) -> None:
        """The disk has more room, or less."""
        self._signs.measured(room)
        self._snapshots.room = room
        self._space.look(self._membership.members)

    def chunk_read(self, read: ChunkRead, chunk: Chunk | None) -> None:
        """The disk has answered one of `Effects.reads`."""
        self._snapshots.chunk_read(read, chunk)

    def records_read(self, read: RecordRead, records: Sequence[TopicRecord]) -> None:
        """The disk has answered one of `Effects.record_reads`.  Raises `StorageCorrupt`."""
        self._fetches.records_read(read, list(records), self.machine)

    def tick(self) -> None:
        """`tick_ms` have passed.  Counted once however many were missed: what arrived before it is stepped first."""
        self._ticks = 1

    # --- a turn -------------------------------------------------------------------------------------------------------------------

    def turn(self, now_ms: int) -> Effects:
        """Do all the work there is and return what must be carried out.  `now_ms`: monotonic milliseconds, never falling.

        Raises `NodeSuspect` where the others have shown that this node lost what it acknowledged, or has another state than they.
        """
        effects = Effects()
        overdue = self.must_apply
        lease_ms = self._begin(now_ms, effects)
        ticked = bool(self._ticks)
        self._step_messages()
        self._follow_role(effects)
        if self._raft.role is Role.LEADER:
            if self._leading is not None:
                if not self._space.refuses_control:
                    self._leading.check_expiries(lease_ms)
                self._lead_members(effects, ticked=ticked)
                self._propose(self._leading, now_ms, effects)
                self._begin_round()
        else:
            self._redirect_waiting(effects)
        self._take_ready(effects)
        if overdue or (effects.persist is None and not effects.send):
            self._apply_waiting(now_ms, lease_ms, effects)
        elif effects.persist is not None and self._raft.role is not Role.LEADER:
            self._held = True
        self._serve_reads(now_ms, lease_ms, effects)
        if self._telling.is_active():
            self._tell(lease_ms, effects)
        self._move_snapshots(effects)
        self._move_records(effects)
        if self._membership.members is not self._told_members:
            self._told_members = self._membership.members
            effects.members, effects.members_index = tuple(self._told_members.values()), self._applied
        if self._signs.has_output or self._space.has_output or self._comparison.has_output:
            self._report(effects)
        return effects

    def _begin(self, now_ms: int, effects: Effects) -> int:
        gap_ms = now_ms - self._last_turn_ms
        if gap_ms > STALL_MS:
            effects.facts.append(Stalled(gap_ms))
            self._membership.stood_still()
        self._last_turn_ms = now_ms
        if self._refusals:
            effects.replies.extend(self._refusals)
            self._refusals.clear()
        return self._lease_clock.advance(now_ms)

    def _step_messages(self) -> None:
        messages, step, is_full = self._messages, self._raft.step, self._signs.is_full
        while messages:
            message = messages.popleft()
            if is_full and _takes_room(message):
                # As if it had been lost: the leader sends it again until there is room.
                continue
            if type(message) in _ABOUT_SNAPSHOTS:
                self._step_snapshot(message)  # type: ignore[arg-type]
            elif type(message) is Vitals:
                self._hear(message)
            else:
                step(message)  # type: ignore[arg-type]
        if self._ticks:
            self._ticks = 0
            self._raft.tick()
            self._snapshots.tick()
            self._records.tick()
            self._signs.tick()
            self._membership.tick()
            self._space.look(self._membership.members)

    # --- how nodes are ------------------------------------------------------------------------------------------------------------

    def _hear(self, message: Vitals) -> None:
        if not self._signs.hear(message):
            return
        self._space.look(self._membership.members)
        if message.version != self.machine.version:
            return
        if self._raft.role is not Role.LEADER:
            self._comparison.learn(message.agreed)
        elif message.marks:
            self._comparison.heard(message.sender, message.marks)
            self._judge_states()

    def _note_state(self, index: LogIndex) -> None:
        """Note the state at one of the indexes at which all nodes do, where its hash says anything."""
        if not self.machine.rolling_hash:
            return
        self._comparison.note(index, self.machine.rolling_hash)
        self._signs.changed()
        if self._raft.role is Role.LEADER:
            self._judge_states()

    def _judge_states(self) -> None:
        if self._comparison.judge(self._raft.configuration):
            self._signs.changed()

    def _report(self, effects: Effects) -> None:
        own, agreed = self._comparison.own, self._comparison.agreed
        effects.send += [self._signs.report(to, self.machine.version, own, agreed) for to in self._signs.receivers()]
        effects.facts += [*self._signs.take_facts(), *self._space.take_facts(), *self._comparison.take_facts()]

    def _refuse_for_room(self, effects: Effects) -> None:
        """Answer those whose commands there is no room for."""
        lanes = (self._control, self._commands) if self._space.refuses_control else (self._commands,)
        if not self._space.refuses_commands or not any(map(len, lanes)):
            return
        refusal = self._space.refusal(self._membership.members)
        for lane in lanes:
            while taken := lane.take(len(lane), 1 << 62):
                effects.replies.extend((proposal.origin[0], Reply(proposal.origin[1], refusal)) for proposal in taken)

    # --- snapshots ----------------------------------------------------------------------------------------------------------------

    def _step_snapshot(self, message: InstallSnapshot | TransferMessage) -> None:
        snapshots = self._snapshots
        if not isinstance(message, InstallSnapshot):
            snapshots.hear(message)
            if isinstance(message, RecordsAsk) and message.term == self._raft.term:
                self._serve_records(message)
        elif snapshots.may_step(message):
            self._raft.step(message)
            if snapshots.stepped():
                # Committed, and covered by the snapshot that takes the machine's place.
                self._waiting.clear()

    def _serve_records(self, ask: RecordsAsk) -> None:
        """A leader that is not ready serves too: without this follower it may never be."""
        if self._raft.role is Role.LEADER and not self._snapshots.is_loading:
            self._fetches.asked(ask, self.machine)

    def _send(self, messages: list[Message], effects: Effects) -> None:
        if full := self._space.full:
            messages = [message for message in messages if not (message.to in full and _brings_entries(message))]
        if InstallSnapshot not in map(type, messages):
            effects.send.extend(messages)
            return
        for message in messages:
            if type(message) is InstallSnapshot:
                self._snapshots.wanted(message)
            else:
                effects.send.append(message)

    def _move_snapshots(self, effects: Effects) -> None:
        snapshots = self._snapshots
        if self._applied >= snapshots.look_at:
            snapshots.begin_if_due(self.machine, self._membership.in_force)
        if snapshots.is_active:
            snapshots.abandon_if_too_much()
            effects.send += snapshots.take_messages()
            effects.reads = snapshots.take_reads()
            effects.stage = snapshots.take_write()
            effects.facts += snapshots.take_facts()
            snapshots.rest()

    # --- records of topics --------------------------------------------------------------------------------------------------------

    def _move_records(self, effects: Effects) -> None:
        """Give what was applied to the next write, and ask the disk for what is to be read."""
        records, snapshots = self._records, self._snapshots
        if records.must_compare and not snapshots.is_loading:
            records.compare(self.machine)
        trim = not snapshots.is_sending
        # On a full disk they stay in the log, and here: nothing new comes.
        is_due = records.is_due and snapshots.room.level is not Level.FULL
        if effects.persist is not None and (is_due or effects.publish is not None):
            snapshot = effects.persist.snapshot
            effects.taken = records.take("persist", self._applied if snapshot is None else snapshot.index, trim=trim)
        elif effects.stage is None and is_due and records.wants_write:
            effects.stage = snapshots.write_of_others()
        # Before a snapshot's records: of each topic they are written in order, and what comes out of it is passed over.
        stage = effects.stage
        if stage is not None and (is_due or stage.publish is not None or stage.records):
            effects.stage = _with_records(stage, records.take("stage", self._applied, trim=trim))
        if self._fetches.has_output:
            effects.record_reads, self._fetches.reads = self._fetches.reads, []
            effects.replies += self._fetches.replies
            effects.send += self._fetches.messages
            self._fetches.replies, self._fetches.messages = [], []

    @property
    def has_slices(self) -> bool:
        """Whether there is something for `work` to do now."""
        return self._snapshots.is_active and self._snapshots.has_work

    def work(self, items: int) -> bool:
        """Do about so many items of what is done between turns; return whether there is more to do now."""
        self._snapshots.work(items)
        return self._snapshots.has_work

    @property
    def is_loading(self) -> bool:
        """Whether the machine is still being made from the snapshot with which this node started."""
        return self._snapshots.is_loading

    @property
    def makes_many_objects(self) -> bool:
        """Whether `work` makes objects that stay, more of them than a garbage collector should look at."""
        return self._snapshots.makes_many_objects

    # --- members ------------------------------------------------------------------------------------------------------------------

    def _lead_members(self, effects: Effects, *, ticked: bool) -> None:
        membership = self._membership
        effects.replies += membership.lead(ticked=ticked, machine_version=self.machine.version)
        if membership.turned_away:
            effects.turned_away, membership.turned_away = membership.turned_away, []

    # --- proposing ----------------------------------------------------------------------------------------------------------------

    def _submit(self, origin: Origin, raw: bytes) -> None:
        try:
            command = decode_command(raw)
        except CoordError as error:
            self._refuse(origin, error.code, error.message)
            return
        if type(command) in LEADERS_OWN:
            self._refuse(origin, "InvalidRequest", f"{type(command).__name__} is the leader's own command; clients cannot send it")
            return
        lane = self._control if is_control(command) else self._commands
        if not lane.put(Proposal(origin, command, raw)):
            self._refuse(origin, "Busy", "the node has more commands queued than it takes; try again in a moment")

    def _propose(self, leading: Leading, now_ms: int, effects: Effects) -> None:
        """Put this turn's commands into the log: the leader's own and control first.

        While leadership is handed over they wait in their lanes, for the successor or for this leader's going on.
        """
        if self._raft.transferee:
            return
        if self._space.is_short:
            self._refuse_for_room(effects)
            if self._space.refuses_control:
                return
        own = leading.own_commands(self._dead, now_ms, self._membership.machine_version())
        for command in own:
            if type(command) is SetMachineVersion:
                self._membership.version_proposed(command.version)
        self._dead = []
        prefix = stamp(leading.stamp_ms(now_ms))
        if own and not self._append(prefix, [Proposal((0, 0), command, encode_command(command)) for command in own]):
            leading.not_proposed(own)
        limits = self._config.lanes
        for lane in (self._control, self._commands):
            taken = lane.take(limits.turn_commands_max, limits.turn_bytes_max)
            if taken and not self._append(prefix, taken):
                effects.replies.extend((proposal.origin[0], _busy(proposal.origin)) for proposal in taken)

    def _append(self, prefix: bytes, proposals: list[Proposal]) -> bool:
        try:
            index, term = self._raft.propose([prefix + proposal.raw for proposal in proposals])
        except (ProposalBusy, Transferring):
            return False
        for offset, proposal in enumerate(proposals):
            self._expect(LogIndex(index + offset), term, proposal)
        return True

    def _expect(self, index: LogIndex, term: Term, proposal: Proposal) -> None:
        command = proposal.command
        self._proposed.append((index, term, command))
        if type(command) is Call:
            self._pending.expect(command.attachment, command.request, proposal.origin)
        elif proposal.origin[1]:
            self._pending.expect_index(index, term, proposal.origin)

    # --- what consensus gives -----------------------------------------------------------------------------------------------------

    @property
    def must_apply(self) -> bool:
        """Whether committed entries wait for nothing but a turn: take it as soon as the last one's effects are carried out."""
        if not self._waiting or self._snapshots.is_loading:
            return False
        return not self._held or len(self._waiting) >= TURN_ENTRIES_MAX

    def _take_ready(self, effects: Effects) -> None:
        # A node whose machine is being made takes all there is: it has a voice long before it has a state.
        most = 1 << 62 if self._snapshots.is_loading else TURN_ENTRIES_MAX
        while len(self._waiting) < most and (ready := self._raft.ready()) is not None:
            if ready.changed:
                self._follow_role(effects)
            if ready.persist is not None:
                assert effects.persist is None, "two writes in one turn"
                effects.persist = ready.persist
                if ready.persist.snapshot is not None:
                    effects.publish = self._snapshots.publish_installed(ready.persist.snapshot)
            self._send(ready.messages, effects)
            for state in ready.read_states:
                self._reads.confirm(state.context, state.index)
            self._waiting.extend(ready.committed)

    def _apply_waiting(self, now_ms: int, lease_ms: int, effects: Effects) -> None:
        if self._waiting and not self._snapshots.is_loading:
            entries, self._waiting = self._waiting[:TURN_ENTRIES_MAX], self._waiting[TURN_ENTRIES_MAX:]
            self._apply(entries, now_ms, lease_ms, effects)
            self._take_ready(effects)  # what applying has let loose

    def _apply(self, entries: list[Entry], now_ms: int, lease_ms: int, effects: Effects) -> None:
        for entry in entries:
            if entry.kind == EntryKind.CONFIGURATION:
                effects.replies += self._membership.applied(entry, self._raft.apply_membership(entry))
            elif entry.data:
                self._apply_command(entry, lease_ms, effects)
            elif entry.term == self._raft.term and self._raft.role is Role.LEADER:
                self._become_ready(entry, now_ms, lease_ms, effects)
            self._applied = entry.index
            if not entry.index % COMPARE_EVERY:
                self._note_state(entry.index)
        self._raft.applied(self._applied)

    def _apply_command(self, entry: Entry, lease_ms: int, effects: Effects) -> None:
        time_ms, command = self._decoded(entry)
        applied = self.machine.apply(entry.index, time_ms, command)
        if applied.records:
            self._records.published(applied.records)
        if applied.trimmed:
            self._records.trimmed(applied.trimmed)
        if self._leading is not None:
            self._telling.ended(applied)
            self._answer(entry, command, applied, lease_ms, effects.replies)
            self._telling.emitted(applied)
            self._keep_leases(self._leading, command, applied, lease_ms)
            if type(applied.result) is LockBroken:
                effects.facts.append(applied.result)
        if applied.closed:
            expired = type(command) is ExpireSession
            effects.facts.append(SessionsEnded(entry.index, tuple(applied.closed), expired))

    def _tell(self, lease_ms: int, effects: Effects) -> None:
        """Tell clients what nobody asked for now."""
        effects.pushes += self._telling.send_strays(self._leader_address())
        if self._leading is not None:
            pushes, replies = self._telling.tell(self.machine, lease_ms)
            effects.pushes += pushes
            effects.replies += replies

    def _decoded(self, entry: Entry) -> tuple[int, Command]:
        """The entry's stamp and command; what this node proposed itself it need not decode again."""
        proposed = self._proposed
        while proposed and proposed[0][0] < entry.index:
            proposed.popleft()
        if proposed and proposed[0][0] == entry.index:
            _, term, command = proposed.popleft()
            if term == entry.term:
                return int.from_bytes(entry.data[:8], "big"), command
        return unstamp(entry.data)

    def _answer(
        self, entry: Entry, command: Command, applied: Applied, lease_ms: int, replies: list[tuple[int, ServerMessage]]
    ) -> None:
        result = applied.result
        if result is not None:
            if type(command) is Call:
                origin = self._pending.pop(command.attachment, command.request)
            else:
                origin = self._pending.pop_index(entry.index, entry.term)
            if origin is None:
                pass
            elif (type(result) is Announced or type(result) is Joined) and result.audience and type(command) is Call:
                self._telling.announce(origin, command, result, self.machine, lease_ms)
            else:
                replies.append((origin[0], Reply(origin[1], result)))
        for attachment, request, late in applied.replies:
            origin = self._pending.pop(attachment, request)
            if origin is not None:
                replies.append((origin[0], Reply(origin[1], late)))

    @staticmethod
    def _keep_leases(leading: Leading, command: Command, applied: Applied, lease_ms: int) -> None:
        for session in applied.leased:
            leading.leased(session, lease_ms)
        for session in applied.closed:
            leading.closed(session)
        if type(command) is Tick:
            leading.ticked()

    # --- reads --------------------------------------------------------------------------------------------------------------------

    def _queue_read(self, item: Renewal | Question) -> None:
        if not self._reads.add(item):
            self._refuse(item.origin, "Busy", "too many reads and keep-alives wait for a quorum; try again in a moment")

    def _begin_round(self) -> None:
        number = self._reads.begin()
        if number is not None:
            self._raft.read_index(number)

    def _serve_reads(self, now_ms: int, lease_ms: int, effects: Effects) -> None:
        leading = self._leading
        if leading is None:
            return
        for item in self._reads.take(self._applied):
            match item:
                case Question(origin, TopicFetch() as query):
                    self._fetches.fetch(origin, query, self.machine, leading.stamp_ms(now_ms))
                case Question(origin, ParkingFetch() as query):
                    self._fetches.fetch_deliveries(origin, query, self.machine)
                case Question(origin, query):
                    answer = leading.with_leases(query, self.machine.query(query), lease_ms)
                    effects.replies.append((origin[0], Told(origin[1], answer)))
                case Renewal():
                    self._renew(leading, item, lease_ms, effects)
                case ExpiryCheck(session):
                    if leading.still_due(item):
                        self._dead.append(session)

    @staticmethod
    def _renew(leading: Leading, item: Renewal, lease_ms: int, effects: Effects) -> None:
        connection, seq = item.origin
        renewed = leading.renew(item.session, item.generation, lease_ms)
        if isinstance(renewed, Failed):
            effects.replies.append((connection, Reply(seq, renewed)))
        elif renewed:
            effects.replies.append((connection, KeptAlive(seq, renewed)))

    # --- roles --------------------------------------------------------------------------------------------------------------------

    def _role(self) -> tuple[Role, Term, NodeId]:
        return self._raft.role, self._raft.term, self._raft.leader_id

    def _follow_role(self, effects: Effects) -> None:
        role = self._role()
        if role == self._known_role:
            return
        self._known_role = role
        effects.facts.append(RoleChanged(role[0].name.lower(), role[1], role[2]))
        if self._leading is not None and (role[0] is not Role.LEADER or role[1] != self._leading.term):
            self._leading = None
        self._snapshots.role_changed()
        self._signs.role_changed()
        self._comparison.role_changed()
        self._space.role_changed(self._membership.members)
        if role[0] is not Role.LEADER:
            self._proposed.clear()
            self._dead = []
            self._redirect_pending(effects)

    def _become_ready(self, entry: Entry, now_ms: int, lease_ms: int, effects: Effects) -> None:
        if self._leading is None:
            self._leading = Leading(entry.term, self.machine, self._reads, now_ms, lease_ms)
            effects.facts.append(LeaderReady(entry.term, entry.index, self.machine.session_count()))

    def _redirect_pending(self, effects: Effects) -> None:
        """Send everyone who waits for an answer to the next leader: there it is asked again, and applied once."""
        leader = self._leader_address()
        for connection, seq in [*self._pending.drain(), *self._telling.drain()]:
            effects.replies.append((connection, Redirect(seq, leader)))

    def _redirect_waiting(self, effects: Effects) -> None:
        """A node that does not lead keeps nothing in its lanes."""
        leader = self._leader_address()
        effects.replies += self._membership.drain(leader)
        effects.pushes += self._telling.redirect(leader)
        for lane in (self._control, self._commands):
            while taken := lane.take(len(lane), 1 << 62):
                effects.replies.extend((proposal.origin[0], Redirect(proposal.origin[1], leader)) for proposal in taken)
        for item in self._reads.drain():
            if not isinstance(item, ExpiryCheck):
                effects.replies.append((item.origin[0], Redirect(item.origin[1], leader)))

    def _leader_address(self) -> str:
        leader = self._membership.members.get(self._raft.leader_id)
        return "" if leader is None else leader.client_address

    def _refuse(self, origin: Origin, code: str, message: str) -> None:
        self._refusals.append((origin[0], Reply(origin[1], Failed(code, message, {}))))

    # --- facts --------------------------------------------------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether one more turn would do something now, without any further event.

        What waits for something else does not count, or a driver would turn in circles: reads for their round, commands for a
        leader that is not ready.
        """
        if self._messages or self._ticks or self._refusals or self.must_apply or self._fetches.has_output:
            return True
        if self._signs.has_output or self._space.has_output or self._comparison.has_output:
            return True
        if self._snapshots.is_active and (self._snapshots.has_output or self._snapshots.has_work):
            return True
        if self._telling.has_work(leads=self._raft.role is Role.LEADER, ready=self._leading is not None):
            return True
        if self._leading is None:
            return False
        waiting = (len(self._control) or len(self._commands)) and not self._raft.transferee
        return bool(waiting or self._reads.wants_round() or self._membership.has_work)

    def status(self) -> ReplicaStatus:
        return ReplicaStatus(
            role=self._raft.role.name.lower(),
            term=self._raft.term,
            leader=self._membership.members.get(self._raft.leader_id),
            members=self._membership.in_force,
            configuration=self._raft.configuration,
            commit_index=self._raft.commit_index,
            applied_index=self._applied,
            last_index=self._raft.last_index,
            sessions=self.machine.session_count(),
            ready=self._leading is not None,
            snapshot_index=self._snapshots.index,
            first_index=self._raft.first_index,
            durable_commit=self._raft.durable_commit,
            refuses=self._space.reason(self._membership.members) if self._space.refuses_commands else "",
        )

    def recent_records(self, topic: TopicNumber) -> Sequence[TopicRecord]:
        """Return the records of a topic that are in memory, whether or not they are stored; for who judges what there is."""
        return self._records.recent(topic)

    @property
    def durable_commit(self) -> LogIndex:
        """As in `status`, for those who ask with every message."""
        return self._raft.durable_commit

    def matched(self) -> dict[NodeId, LogIndex]:
        """Return up to where each member's log is known to equal this leader's; nothing elsewhere."""
        return {progress.node_id: progress.match for progress in self._raft.progress()}


def _with_records(batch: Batch, taken: Taken | None) -> Batch:
    if taken is None:
        return batch
    return replace(batch, records=[*taken.records, *batch.records], records_index=taken.index, trims=taken.trims)


def _takes_room(message: PeerMessage) -> bool:
    """Whether a node would have to store more than a vote takes."""
    return _brings_entries(message) or type(message) in (InstallSnapshot, SnapshotOffer, SnapshotChunk, RecordsPart)


def _brings_entries(message: PeerMessage) -> bool:
    """Not counted is an entry without content: with it a leader begins, and without leaders nobody's lease could be renewed."""
    return type(message) is Append and any(entry.data for entry in message.entries)


def _busy(origin: Origin) -> Reply:
    message = "more is waiting to be committed than the leader holds; try again in a moment"
    return Reply(origin[1], Failed("Busy", message, {"limit": "max_uncommitted_bytes"}))
