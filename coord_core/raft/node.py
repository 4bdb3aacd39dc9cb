"""One node of a Raft cluster: the face of this package.

Everything comes in as a call and goes out through `ready()`.  Nothing here reads a clock, draws from a global generator, blocks
or logs, so the same calls always have the same outcome.  The driver's duties are numbered in the package's text.

The face only takes apart and hands on.  Messages go through `dispatch`; what happens is in `election`, `replication`, `reads`
and `membership`; what may leave when, in `outbox`; what must never be, in `invariants`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from coord_core.raft import dispatch, election, membership, outbox, pipeline, reads, replication, roles
from coord_core.raft.config import RaftConfig
from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from coord_core.raft.membership import MembershipChange
from coord_core.raft.messages import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Message,
    SnapshotMetadata,
    VoteReply,
)
from coord_core.raft.outbox import Outbox, PersistAck
from coord_core.raft.progress import Sending
from coord_core.raft.ready import PeerProgress, Ready
from coord_core.raft.refusals import NotLeaderError, ProposalBusy, Transferring
from coord_core.raft.state import Role, State
from coord_core.raft.zero import NO_TERM, NOBODY, START
from coord_core.types import LogIndex, NodeId, Term


@dataclass(slots=True)
class _Soft:
    role: Role = Role.FOLLOWER
    leader_id: NodeId = NOBODY
    term: Term = NO_TERM


class RaftNode:
    """A node's consensus.  One owner calls it, from one thread; no call returns to it from inside another.

    Args:
        config: this node's settings, validated.
        hard_state: what storage has; a new node's is all zeros.
        snapshot: where the stored log begins; the founding configuration's point, or a later snapshot's.
        entries: all stored entries after it, or after `begin`, contiguous.
        rng: draws the election timeouts; seed it differently on every node.
        applied: what the driver's machine has applied already; the snapshot's index where it is rebuilt from the log.
        begin: index and term of the point where the stored log begins, if some of it is kept from before the snapshot.

    Raises `InvariantViolation` where the stored parts do not fit each other.
    """

    def __init__(
        self,
        config: RaftConfig,
        *,
        hard_state: HardState,
        snapshot: SnapshotMetadata,
        entries: Sequence[Entry],
        rng: random.Random,
        applied: LogIndex | None = None,
        begin: tuple[LogIndex, Term] | None = None,
    ) -> None:
        if entries and entries[-1].term > hard_state.term:
            # Figure 2: the term is durable before an entry of it is.  Who lost it could vote twice.
            raise InvariantViolation(f"stored entries are of term {entries[-1].term}, the stored term is {hard_state.term}")
        log = RaftLog(snapshot, entries, hard_state.commit, snapshot.index if applied is None else applied, begin)
        self._state = State(
            config=config,
            node_id=config.node_id,
            log=log,
            rng=rng,
            term=hard_state.term,
            voted_for=hard_state.voted_for,
            outbox=Outbox(durable=hard_state, taken=hard_state),
            configuration=snapshot.configuration,
            configured=snapshot.index,
        )
        membership.adopt(self._state, snapshot.configuration)
        membership.replay(self._state)
        roles.become_follower(self._state, hard_state.term, NOBODY)
        #: What the last Ready reported.
        self._soft = _Soft(term=hard_state.term)

    # -- inputs

    def tick(self) -> None:
        """One tick of the driver's clock has passed."""
        state = self._state
        if state.role is Role.LEADER:
            election.tick_leader(state)
            # Where leadership was to be handed over when that was due, and stayed.
            membership.leave_if_due(state)
        else:
            election.tick(state)

    def step(self, message: Message) -> None:
        """Take a message from a peer.  One that cannot be true is dropped and counted in `dropped_messages`.

        Raises `NodeSuspect` where it shows that this node's disk lost what it had acknowledged: the driver stops the node, which
        must not say anything more.
        """
        dispatch.step(self._state, message)

    def propose(self, commands: Sequence[bytes]) -> tuple[LogIndex, Term]:
        """Append commands, all or none; return the index of the first and the term of all.

        They are committed when they come out of `ready()` in that term; a change of term at that index means they never will
        be. Raises `NotLeaderError`, `Transferring`, `ProposalBusy`: nothing was appended.
        """
        state = self._leading()
        if not commands:
            raise ValueError("there is nothing to propose")
        log = state.log
        size = sum(map(len, commands)) + ENTRY_OVERHEAD_BYTES * len(commands)
        uncommitted = log.uncommitted_bytes
        # A proposal larger than the bound passes when nothing else waits.
        if uncommitted and uncommitted + size > state.config.max_uncommitted_bytes:
            raise ProposalBusy(f"{uncommitted} bytes wait to be committed", uncommitted_bytes=uncommitted)
        first, term, kind = log.last_index + 1, state.term, EntryKind.COMMAND
        entries = [Entry(LogIndex(index), term, kind, command) for index, command in enumerate(commands, first)]
        replication.append_own(state, entries)
        return LogIndex(first), term

    def _leading(self) -> State:
        """Return the state where this node leads and may append; raises otherwise."""
        state = self._state
        if state.role is not Role.LEADER or state.node_id not in state.progress:
            raise NotLeaderError(f"node {state.leader_id or 'unknown'} leads", leader_id=state.leader_id)
        if state.transferee:
            raise Transferring(f"leadership goes to node {state.transferee}", to=state.transferee)
        return state

    def read_index(self, context: int) -> None:
        """Ask for a linearizable read: a `ReadState` with `context` comes out when a quorum has confirmed this leader since.

        It never comes where the role changes before: the driver fails what waits when `Ready.changed` says so.
        Raises `NotLeaderError`, `ReadsBusy`.
        """
        state = self._state
        if state.role is not Role.LEADER:
            raise NotLeaderError(f"node {state.leader_id or 'unknown'} leads", leader_id=state.leader_id)
        reads.read_index(state, context)

    def propose_membership(self, change: MembershipChange) -> LogIndex:
        """Append a membership change; return its index.

        Raises `NotLeaderError`, `Transferring`; `MembershipRefused` where another change is pending, the own term has nothing
        committed yet, or the change does not fit the configuration.
        """
        return membership.propose(self._leading(), change)

    def apply_membership(self, entry: Entry) -> Configuration:
        """Put a committed CONFIGURATION entry in force; the driver calls it when it comes to the entry, before `applied`."""
        return membership.apply(self._state, entry)

    def keep_commit(self, index: LogIndex) -> None:
        """Have it written that the log is committed up to `index`, which it is; by itself that is not worth a write.

        For what must not be forgotten though others may be gone that know it too: who was removed stops one day.
        """
        if index > self._state.log.commit:
            raise InvariantViolation(f"{index} is not committed: {self._state.log!r}")
        self._state.commit_to_keep = index

    def transfer(self, to: NodeId) -> None:
        """Hand leadership to `to`.  Proposals are refused until it leads, or an election timeout has passed.

        Raises `NotLeaderError`, `TransferRefused`.
        """
        if self._state.role is not Role.LEADER:
            raise NotLeaderError(f"node {self._state.leader_id or 'unknown'} leads", leader_id=self._state.leader_id)
        election.transfer(self._state, to)

    def campaign(self) -> None:
        """Start an election now (pre-vote first), if this node votes and does not lead."""
        election.hup(self._state)

    def persisted(self, ack: PersistAck) -> None:
        """The outstanding Persist is durable.  Another's `ack` is ignored.

        With `async_storage_writes`: the one of `ack` is, and all before it.
        """
        state = self._state
        if state.config.async_storage_writes:
            pipeline.persisted(state, ack)
            return
        if not outbox.persisted(state, ack):
            return
        self._hear_own(outbox.take_own(state))
        if state.role is Role.LEADER:
            replication.own_log_durable(state)

    def applied(self, index: LogIndex) -> None:
        """The driver has applied everything up to `index`, which it was handed."""
        state = self._state
        skipped = state.log.configurations(LogIndex(state.configured + 1), LogIndex(index + 1))
        if skipped:
            raise InvariantViolation(f"the membership change at {skipped[0].index} was applied without apply_membership")
        state.log.applied_to(index)
        membership.leave_if_due(state)

    def leader_lost(self) -> None:
        """This node's connection to the leader closed: forget its lease, campaign, and grant to others."""
        election.leader_lost(self._state)

    def forget_leader(self) -> None:
        """Forget the leader's lease without campaigning."""
        election.forget_leader(self._state)

    def unreachable(self, peer: NodeId) -> None:
        """A message to `peer` was lost: what followed it was in vain, so find out anew where its log stands."""
        progress = self._state.progress.get(peer)
        if not self._state.is_leader or progress is None or peer == self.node_id:
            return
        progress.unreachable = True
        if progress.state is Sending.REPLICATE:
            progress.become_probe()

    def report_snapshot(self, peer: NodeId, ok: bool) -> None:
        """The snapshot offered to `peer` has arrived there, or will not.  Without a report the peer gets nothing more."""
        progress = self._state.progress.get(peer)
        if not self._state.is_leader or progress is None or progress.state is not Sending.SNAPSHOT:
            return
        if not ok:
            progress.pending_snapshot = START
        progress.become_probe()
        # Where it arrived, its acknowledgement comes first; where not, a heartbeat passes before the next attempt.
        progress.paused = True

    def snapshot_taken(self, metadata: SnapshotMetadata) -> None:
        """The driver has a durable snapshot at `metadata.index`: followers may be offered it, and the log compacted up to there."""
        log = self._state.log
        if not log.snapshot.index <= metadata.index <= log.applied or log.term(metadata.index) != metadata.term:
            raise InvariantViolation(f"no snapshot can be at {metadata.index}, term {metadata.term}: {log!r}")
        log.snapshot = metadata

    def compact(self, index: LogIndex) -> None:
        """Forget the entries up to and including `index`, which the last snapshot covers."""
        self._state.log.compact(index)

    def trailing_index(self, max_entries: int, max_bytes: int) -> LogIndex:
        """Return up to where the log may be compacted if so much before the applied index is kept for followers that lag."""
        log = self._state.log
        return log.trailing(log.applied, max_entries, max_bytes)

    def bytes_since(self, index: LogIndex) -> int:
        """Return the bytes of the entries applied after `index`, which is at or after the point before the first one held."""
        return self._state.log.bytes_between(index + 1, self.applied_index + 1)

    def term_at(self, index: LogIndex) -> Term | None:
        """Return the term of the entry at `index`, or at the point before the first one held; None elsewhere."""
        return self._state.log.term(index)

    # -- outputs

    def ready(self) -> Ready | None:
        """Return what there is to do; None when there is nothing until the next input."""
        state = self._state
        while True:
            if state.role is Role.LEADER and state.reads.waiting:
                number = reads.begin_round(state)
                if number:
                    replication.broadcast_heartbeat(state, number)
            own = outbox.take_own(state)
            ready = self._collect()
            if ready is not None:
                # Before anything leaves.
                state.watch.check(state)
            # Whoever needs no disk for its own word hears it after the others were asked.
            self._hear_own(own)
            if ready is not None or not own:
                return ready

    def _collect(self) -> Ready | None:
        state = self._state
        if state.config.async_storage_writes:
            persist = pipeline.take_persist(state)
            committed = state.log.take_applicable(state.config.max_committed_bytes)
        else:
            persist = outbox.take_persist(state)
            committed = state.log.take_committed(state.config.max_committed_bytes)
        messages = outbox.take_messages(state)
        read_states = state.reads.take_confirmed()
        soft = self._soft
        changed = soft.term != state.term or soft.role is not state.role or soft.leader_id != state.leader_id
        if changed:
            soft.term, soft.role, soft.leader_id = state.term, state.role, state.leader_id
        elif persist is None and not messages and not committed and not read_states:
            return None
        return Ready(persist, messages, committed, read_states, changed)

    def _hear_own(self, messages: list[VoteReply]) -> None:
        for message in messages:
            # A vote of a campaign that is over says nothing any more.
            if message.term == self._state.term + message.pre_vote:
                election.on_vote_reply(self._state, message)

    # -- facts

    @property
    def node_id(self) -> NodeId:
        return self._state.node_id

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def term(self) -> Term:
        return self._state.term

    @property
    def voted_for(self) -> NodeId:
        """Who has this node's vote in `term`; 0 for none."""
        return self._state.voted_for

    @property
    def leader_id(self) -> NodeId:
        """The leader of `term`; 0 while unknown."""
        return self._state.leader_id

    @property
    def commit_index(self) -> LogIndex:
        return self._state.log.commit

    @property
    def durable_commit(self) -> LogIndex:
        """Up to here this node will know after a crash that the log is committed."""
        return self._state.outbox.durable.commit

    @property
    def applied_index(self) -> LogIndex:
        return self._state.log.applied

    @property
    def first_index(self) -> LogIndex:
        """The first entry held; what lies before it is in a snapshot."""
        return self._state.log.first_index

    @property
    def last_index(self) -> LogIndex:
        return self._state.log.last_index

    @property
    def installing(self) -> SnapshotMetadata | None:
        """The leader's snapshot that this node has begun anew after, until the Persist that says so is durable."""
        return self._state.log.installing

    @property
    def durable_index(self) -> LogIndex:
        """Up to here this node's disk has the log as it is in memory."""
        return self._state.log.durable

    @property
    def configuration(self) -> Configuration:
        """In force: as of the last membership change applied."""
        return self._state.configuration

    @property
    def election_timeout_ticks(self) -> int:
        return self._state.config.election_timeout_ticks

    @property
    def own_term_committed(self) -> bool:
        """On a leader: an entry of its term is committed, so it knows all that is."""
        return self._state.own_term_committed

    @property
    def transferee(self) -> NodeId:
        """Who is to take over; 0 for nobody."""
        return self._state.transferee

    @property
    def uncommitted_bytes(self) -> int:
        return self._state.log.uncommitted_bytes

    @property
    def dropped_messages(self) -> tuple[int, str]:
        """How many messages could not be true, and why the last one could not."""
        return self._state.dropped, self._state.last_dropped

    def entries(self, low: LogIndex, high: LogIndex) -> tuple[Entry, ...]:
        """Return the entries of [low, high), which must be held."""
        if not self.first_index <= low <= high <= self.last_index + 1:
            raise IndexError(f"[{low}, {high}) is not in [{self.first_index}, {self.last_index + 1})")
        return self._state.log.slice(low, high)

    def progress(self) -> list[PeerProgress]:
        """What this leader knows of each node, itself too, by rising id; empty on others."""
        if not self._state.is_leader:
            return []
        return [PeerProgress.of(node, progress) for node, progress in self._state.progress.items()]
