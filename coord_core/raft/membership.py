"""Who belongs: changing the configuration, one voter at a time or jointly (dissertation, 4.1 to 4.3).

The semantics are etcd/raft's, which deviate from the dissertation in two points, both for simplicity's sake:

- A configuration takes effect when its entry is *applied*, not when it is appended.  So a change that is cut off with a suffix
  never was in force and needs no roll-back, and a snapshot at an applied index always carries a committed configuration.  In
  return, at most one change may wait to be applied (`State.pending_membership`), and a node with a committed unapplied one does
  not campaign.
- More than one voter changes only through a joint configuration, which needs both majorities until it is left by another entry.
  With `auto_leave` the leader proposes that entry itself.

`changed` is a pure function from configuration to configuration; it holds all the rules.  Everything else here is when to call
it.
"""

from collections.abc import Iterable
from enum import IntEnum

import msgspec

from coord_core.raft import replication, roles
from coord_core.raft.invariants import InvariantViolation
from coord_core.raft.messages import AppendReply, Configuration, Entry, EntryKind, InstallSnapshot
from coord_core.raft.outbox import send_after_persist
from coord_core.raft.refusals import MembershipRefused
from coord_core.raft.state import Role, State
from coord_core.raft.zero import NOBODY
from coord_core.types import LogIndex, NodeId


class StepKind(IntEnum):
    """What happens to one node."""

    ADD_VOTER = 0
    ADD_LEARNER = 1
    REMOVE = 2
    #: Nothing changes for consensus; the driver has something to note (a new address).
    UPDATE = 3


class Transition(IntEnum):
    """How the change takes effect."""

    #: At once where one voter changes at most, jointly and left by itself otherwise.
    AUTO = 0
    #: Jointly, left by itself.
    JOINT_IMPLICIT = 1
    #: Jointly, left by a change without steps.
    JOINT_EXPLICIT = 2


class MembershipStep(msgspec.Struct, frozen=True, array_like=True):
    """One node's part in a change.  Adding a learner as voter promotes it; adding a voter as learner demotes it."""

    kind: StepKind
    node_id: NodeId


class MembershipChange(msgspec.Struct, frozen=True, array_like=True):
    """What a CONFIGURATION entry says.  Without steps: leave the joint configuration."""

    steps: tuple[MembershipStep, ...] = ()
    transition: Transition = Transition.AUTO
    #: The driver's own, never looked at here.
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        return not self.steps and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        return self.transition is not Transition.AUTO or len(self.steps) > 1


_decoder = msgspec.msgpack.Decoder(MembershipChange)


def encode(change: MembershipChange) -> bytes:
    """Return the data of a CONFIGURATION entry: empty for leaving a joint configuration, the change that must always pass."""
    return b"" if change == MembershipChange() else msgspec.msgpack.encode(change)


def decode(data: bytes) -> MembershipChange:
    """Return what a committed CONFIGURATION entry says.  Raises `InvariantViolation` where it does not decode."""
    if not data:
        return MembershipChange()
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise InvariantViolation(f"a committed membership change does not decode: {error}") from error


class _Editor:
    """A configuration under change.  Steps are idempotent: removing who is not there does nothing."""

    def __init__(self, configuration: Configuration) -> None:
        self.voters = set(configuration.voters)
        self.outgoing = set(configuration.outgoing)
        self.learners = set(configuration.learners)
        self.learners_next = set(configuration.learners_next)

    def take(self, step: MembershipStep) -> None:
        node = step.node_id
        # Node 0 stands for nobody everywhere; a step about it says nothing.
        if not node:
            return
        if step.kind is StepKind.ADD_VOTER:
            self._drop(node)
            self.voters.add(node)
        elif step.kind is StepKind.ADD_LEARNER:
            self._drop(node)
            # Who is still a voter of the outgoing half cannot be a learner yet.
            (self.learners_next if node in self.outgoing else self.learners).add(node)
        elif step.kind is StepKind.REMOVE:
            self._drop(node)

    def _drop(self, node: NodeId) -> None:
        for group in (self.voters, self.learners, self.learners_next):
            group.discard(node)

    def configuration(self, *, auto_leave: bool) -> Configuration:
        if not self.voters:
            raise MembershipRefused("removed all voters")
        return Configuration(
            voters=tuple(sorted(self.voters)),
            outgoing=tuple(sorted(self.outgoing)),
            learners=tuple(sorted(self.learners)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=auto_leave,
        )


def changed(configuration: Configuration, change: MembershipChange) -> Configuration:
    """Return what `change` makes of `configuration`.  Raises `MembershipRefused` where it does not fit."""
    if change.leaves_joint:
        return leave_joint(configuration)
    if change.enters_joint:
        return enter_joint(configuration, change.steps, auto_leave=change.transition is not Transition.JOINT_EXPLICIT)
    return simple(configuration, change.steps)


def enter_joint(configuration: Configuration, steps: Iterable[MembershipStep], *, auto_leave: bool) -> Configuration:
    """Keep the present voters as the outgoing half, and change the other."""
    if configuration.outgoing:
        raise MembershipRefused("config is already joint")
    if not configuration.voters:
        raise MembershipRefused("can't make a zero-voter config joint")
    editor = _Editor(configuration)
    editor.outgoing = set(configuration.voters)
    for step in steps:
        editor.take(step)
    return editor.configuration(auto_leave=auto_leave)


def leave_joint(configuration: Configuration) -> Configuration:
    """Drop the outgoing half; those who were to become learners become them."""
    if not configuration.outgoing:
        raise MembershipRefused("can't leave a non-joint config")
    editor = _Editor(configuration)
    editor.learners |= editor.learners_next
    editor.learners_next = set()
    editor.outgoing = set()
    return editor.configuration(auto_leave=False)


def simple(configuration: Configuration, steps: Iterable[MembershipStep]) -> Configuration:
    """Change at once.  At most one voter may differ, so that the old and the new majorities share a node (dissertation, 4.1)."""
    if configuration.outgoing:
        raise MembershipRefused("can't apply simple config change in joint config")
    editor = _Editor(configuration)
    for step in steps:
        editor.take(step)
    after = editor.configuration(auto_leave=configuration.auto_leave)
    if len(set(configuration.voters) ^ set(after.voters)) > 1:
        raise MembershipRefused("more than one voter changed without entering joint config")
    return after


# -- proposing


def propose(state: State, change: MembershipChange) -> LogIndex:
    """Append a change (the caller has made sure that this node leads and hands over to nobody).  Raises `MembershipRefused`."""
    if state.config.validate_membership:
        _validate(state, change)
    if state.config.membership_waits_for_own_term and not state.own_term_committed:
        raise MembershipRefused("no entry of this leader's term is committed yet")
    index = LogIndex(state.log.last_index + 1)
    state.pending_membership = index
    replication.append_own(state, [Entry(index, state.term, EntryKind.CONFIGURATION, encode(change))])
    return index


def _validate(state: State, change: MembershipChange) -> None:
    if state.pending_membership > state.log.applied:
        raise MembershipRefused(
            f"a change at index {state.pending_membership} may be pending, applied is {state.log.applied}",
            pending=state.pending_membership,
        )
    is_joint = bool(state.configuration.outgoing)
    if is_joint and change.steps:
        raise MembershipRefused("leave the joint configuration first")
    if not is_joint and not change.steps:
        raise MembershipRefused("there is no joint configuration to leave")
    # Nothing can change the configuration before this entry is applied: what fits now fits then.
    changed(state.configuration, change)


def leave_if_due(state: State) -> None:
    """Propose to leave a joint configuration that asks for it; tried again with every applied entry and every tick."""
    if not (state.is_leader and state.configuration.auto_leave and state.log.applied >= state.pending_membership):
        return
    if state.transferee or (state.config.membership_waits_for_own_term and not state.own_term_committed):
        return
    propose(state, MembershipChange())


# -- applying


def apply(state: State, entry: Entry) -> Configuration:
    """Put the committed change of `entry` in force and return the new configuration."""
    if entry.kind != EntryKind.CONFIGURATION or not state.configured < entry.index <= state.log.handed:
        raise InvariantViolation(f"entry {entry.index} is no membership change to apply now: {state.log!r}")
    change = decode(entry.data)
    try:
        configuration = changed(state.configuration, change)
    except MembershipRefused as error:
        raise InvariantViolation(f"the committed membership change {entry.index} does not fit: {error}") from error
    state.configured = entry.index
    forget_removed(state, change.steps, configuration)
    switch(state, configuration)
    return configuration


def forget_removed(state: State, steps: Iterable[MembershipStep], after: Configuration) -> None:
    """Forget what is known of those that `steps` remove: who is added again by the same change begins anew (with etcd/raft).

    Who votes in the outgoing half is not gone yet.
    """
    for step in steps:
        if step.kind is StepKind.REMOVE and step.node_id not in (*after.outgoing, state.node_id):
            state.progress.pop(step.node_id, None)


def adopt(state: State, configuration: Configuration) -> None:
    """Begin with `configuration`, whatever was before: at the start, and where a snapshot was installed."""
    state.configuration = configuration
    state.progress = {}
    _track(state)


def _track(state: State) -> None:
    """Make `progress` hold exactly the configuration's nodes, by rising id; who stays keeps what is known of it."""
    configuration = state.configuration
    learners = set(configuration.learners)
    tracked = {}
    for node in sorted({*configuration.voters, *configuration.outgoing, *learners}):
        progress = state.progress.get(node)
        if progress is None:
            progress = state.new_progress(LogIndex(max(state.log.last_index, 1)))
            # As if it had just answered: check quorum gives it an election timeout to do so.
            progress.recent_active = True
        progress.is_learner = node in learners
        tracked[node] = progress
    state.progress = tracked


def switch(state: State, configuration: Configuration) -> None:
    """Put `configuration` in force, with what it means for a leader or who would be one."""
    state.configuration = configuration
    _track(state)
    own = state.progress.get(state.node_id)
    if state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and (own is None or own.is_learner):
        # What it was granted was for a voter (a refusal may tell a candidate what is committed: `election.on_vote_reply`).
        roles.become_follower(state, state.term, NOBODY)
    if not state.is_leader:
        return
    if own is None or own.is_learner:
        # It led until the change was committed, without counting itself (dissertation, 4.2.2).
        if state.config.step_down_on_removal:
            roles.become_follower(state, state.term, NOBODY)
        return
    if replication.maybe_commit(state):
        replication.broadcast_append(state)
    else:
        # Those who are new need not wait for a heartbeat.
        for peer, progress in state.progress.items():
            if peer != state.node_id:
                replication.send_append(state, peer, progress, even_if_empty=False)
    state.reads.release(configuration)
    if state.transferee not in configuration.voters and state.transferee not in configuration.outgoing:
        state.transferee = NOBODY


# -- snapshots


def on_install_snapshot(state: State, message: InstallSnapshot) -> None:
    """Begin anew after the leader's snapshot, unless this log has what it covers (Raft, figure 13)."""
    log, metadata = state.log, message.metadata
    index = log.commit
    if metadata.index > log.commit:
        if log.matches(metadata.index, metadata.term):
            # The entries are all here; they were only not known to be committed.
            log.commit_to(metadata.index)
            index = log.commit
        else:
            log.install(metadata)
            state.configured = metadata.index
            adopt(state, metadata.configuration)
            index = log.last_index
    send_after_persist(state, AppendReply(sender=state.node_id, to=message.sender, term=state.term, index=index))


def replay(state: State) -> None:
    """Put in force the changes between the snapshot and the applied index with which a node restarts."""
    for entry in state.log.configurations(LogIndex(state.configured + 1), LogIndex(state.log.applied + 1)):
        apply(state, entry)
