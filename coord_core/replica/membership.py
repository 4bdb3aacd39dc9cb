"""Who belongs to the cluster, by name and address, and how that changes.

Consensus knows ids; here they have names, addresses and the incarnation of their directory.  A CONFIGURATION entry carries the
members that it adds or changes, so every node learns of them when it applies the entry.

The rules:

- *A node's id is the index of the entry that added it*: never used twice, and whoever has applied that index knows whether the
  node belongs.  Founders have the ids below the first entry.
- *Learner first.*  A node that joins only follows until it has the log but for a little; then the leader makes it a voter.
- *One change at a time* (consensus demands it); what else is asked waits here, within bounds, as long as this node leads.
- *A leader that is to go hands over first*, and its successor removes it.  So nobody leads a cluster to which it does not belong.
- *Nobody is removed where those that are left and were heard lately are no majority*, unless by force.  A leader that is new, or
  that stood still, has heard nobody lately: it lets such a question wait for two election timeouts.
- *What was removed is forgotten only when this node would still know after a crash* (`RaftNode.keep_commit`).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from coord_core.errors import CoordError, InvalidRequest, LimitExceeded, NodeRemoved, Unavailable, Unsafe, WrongCluster
from coord_core.protocol.administration import Administration, RemoveMember, TransferLeadership
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity, Redirect, Reply, ServerMessage
from coord_core.protocol.results import Done, Failed
from coord_core.raft.membership import MembershipChange, MembershipStep, StepKind, decode
from coord_core.raft.messages import Configuration, Entry
from coord_core.raft.node import RaftNode
from coord_core.raft.progress import Sending
from coord_core.raft.ready import PeerProgress
from coord_core.raft.refusals import Refused, TransferRefused
from coord_core.raft.zero import NOBODY
from coord_core.replica.pending import Origin
from coord_core.types import LogIndex, NodeId

#: Voters and learners.  One more is refused: every one of them is written to by the leader.
MEMBERS_MAX = 32
#: Requests, and nodes that ask to be let in, that wait for their turn.  One more request is refused; of the nodes the first is
#: forgotten, which asks again.
WAITING_MAX = 64
#: So long a question is remembered; who still wants to be let in asks again in half of that.
JOIN_TICKS_MAX = 200
#: Entries that a learner may lack when it becomes a voter: about what a few milliseconds bring.
PROMOTION_LAG_MAX = 1_000

_context_encoder = msgspec.msgpack.Encoder()
_context_decoder: "msgspec.msgpack.Decoder[tuple[Member, ...]]" = msgspec.msgpack.Decoder(tuple[Member, ...])


@dataclass(frozen=True, slots=True)
class _Asked:
    origin: Origin
    request: Administration


@dataclass(frozen=True, slots=True)
class _Change:
    """What is appended: the steps, and the members they bring or alter."""

    steps: tuple[MembershipStep, ...]
    members: tuple[Member, ...] = ()


class Membership:
    """The members, on every node; and on the leader what is to change."""

    def __init__(self, raft: RaftNode, members: Iterable[Member]) -> None:
        self._raft = raft
        #: By rising id; replaced and never altered, so that who has an old one can tell.  Besides those of the configuration in
        #: force it has the ones that this node was told of and has not come to yet: their ids lie beyond its applied index.
        self.members: Mapping[NodeId, Member] = {member.node_id: member for member in members}
        #: Those of the configuration in force, by rising id.
        self.in_force: tuple[Member, ...] = self._of(raft.configuration)
        self._known_to_all = _known_to_all(self.in_force)
        #: By name: nodes that want to be let in, and for how many ticks more that is remembered.
        self._joining: dict[str, tuple[PeerIdentity, int]] = {}
        self._asked: deque[_Asked] = deque()
        #: The last change that was applied here: who is not a member was removed there or before.
        self._changed_at: LogIndex = LogIndex(0)
        #: The change that was appended here last, and who waits for it.
        self._under_way: LogIndex = LogIndex(0)
        self._waiting_for_it: Origin | None = None
        #: Leadership is being handed over for the first in `_asked`.
        self._handing_over = False
        #: Ticks for which this node has led without standing still.  After a few it has heard everybody that can be heard.
        self._led_ticks = 0
        #: Something waits for that, and for nothing else.
        self._unsettled = False
        #: The machine's, as the leader knows it; and the one that it is about to have.
        self._machine_version = self._proposed_version = 0
        #: Nodes that asked and cannot be let in, with why.
        self.turned_away: list[tuple[PeerIdentity, CoordError]] = []

    # --- what is in force ---------------------------------------------------------------------------------------------------------

    def applied(self, entry: Entry, configuration: Configuration) -> list[tuple[int, ServerMessage]]:
        """Take over what a CONFIGURATION entry says, which consensus has put in force; return the answers that it lets go."""
        added = {member.node_id: member for member in members_of(entry)}
        self._keep({**self.members, **added}, entry.index, configuration)
        self._raft.keep_commit(entry.index)
        self._changed_at = entry.index
        if self._waiting_for_it is None or entry.index != self._under_way:
            return []
        waiting, self._waiting_for_it = self._waiting_for_it, None
        return [_answer(waiting, Done())]

    def installed(self, members: Iterable[Member], index: LogIndex) -> None:
        """A leader's snapshot is in force."""
        self._keep({**self.members, **{member.node_id: member for member in members}}, index, self._raft.configuration)

    def _keep(self, members: Mapping[NodeId, Member], index: LogIndex, configuration: Configuration) -> None:
        ids = everyone(configuration)
        self.members = {node: member for node, member in sorted(members.items()) if node in ids or node > index}
        self.in_force = self._of(configuration)
        self._known_to_all = _known_to_all(self.in_force)
        # Who is a member as it said has been let in, by whichever node: nobody must do so again when it was removed.
        for member in self.in_force:
            asked = self._joining.get(member.name)
            if asked is not None and asked[0].as_member(member.node_id) == member:
                del self._joining[member.name]

    def _of(self, configuration: Configuration) -> tuple[Member, ...]:
        ids = everyone(configuration)
        return tuple(member for node, member in self.members.items() if node in ids)

    def machine_version(self) -> int:
        """Return the newest version of the machine that everybody knows; 0 while somebody may be coming who does not."""
        return self._known_to_all if self._is_free else 0

    def version_proposed(self, version: int) -> None:
        """This leader has put a version into the log: who comes behind it must know it."""
        self._proposed_version = version

    # --- asking -------------------------------------------------------------------------------------------------------------------

    def join(self, caller: PeerIdentity) -> None:
        """A node asks to be let in, or says that it has moved; when it is so, it is among the members.

        A leader that refuses it has it in `turned_away`.
        """
        self._joining.pop(caller.name, None)
        if any(member == caller.as_member(member.node_id) for member in self.in_force):
            # What it may have said before is not so any more.
            return
        self._joining[caller.name] = caller, JOIN_TICKS_MAX
        if len(self._joining) > WAITING_MAX:
            del self._joining[next(iter(self._joining))]

    def tick(self) -> None:
        """Forget who has not asked for long: it has gone, or asks another."""
        if self._joining:
            self._joining = {name: (caller, ticks - 1) for name, (caller, ticks) in self._joining.items() if ticks > 1}

    def stood_still(self) -> None:
        """Whom this leader heard before says nothing any more."""
        self._led_ticks = 0

    def ask(self, origin: Origin, request: Administration) -> ServerMessage | None:
        """Queue a request; return the refusal where there is no room for it."""
        if len(self._asked) >= WAITING_MAX:
            return _failed(origin, "Busy", f"{WAITING_MAX} changes of the cluster wait already; try again in a moment")
        self._asked.append(_Asked(origin, request))
        return None

    def drain(self, leader: str) -> list[tuple[int, ServerMessage]]:
        """This node does not lead: send everyone to who does."""
        origins = [asked.origin for asked in self._asked]
        if self._waiting_for_it is not None:
            origins.append(self._waiting_for_it)
        self._asked.clear()
        self._waiting_for_it = None
        self._handing_over = self._unsettled = False
        self._led_ticks = self._proposed_version = 0
        return [(origin[0], Redirect(origin[1], leader)) for origin in origins]

    @property
    def has_work(self) -> bool:
        """Whether `lead` would do something now."""
        return bool(self._asked or self._joining) and self._may_begin

    # --- leading ------------------------------------------------------------------------------------------------------------------

    @property
    def _is_free(self) -> bool:
        """Whether a change could be appended: none is pending, and leadership stays where it is."""
        raft = self._raft
        is_settled = raft.applied_index >= self._under_way and not raft.configuration.outgoing
        return is_settled and raft.own_term_committed and not raft.transferee

    @property
    def _may_begin(self) -> bool:
        return self._is_free and not self._handing_over and not self._unsettled

    @property
    def _is_settled(self) -> bool:
        return self._led_ticks >= 2 * self._raft.election_timeout_ticks

    def lead(self, *, ticked: bool, machine_version: int) -> list[tuple[int, ServerMessage]]:
        """Do what is to be done next, on a leader that takes commands; return answers.  `ticked`: also see who can be promoted."""
        self._machine_version = machine_version
        answers: list[tuple[int, ServerMessage]] = []
        if ticked:
            self._led_ticks += 1
            self._unsettled = False
        if self._handing_over and not self._raft.transferee:
            self._handing_over = False
            answers.append(_answer(self._asked.popleft().origin, _not_taken_over()))
        while self._asked and self._may_begin:
            answer = self._do(self._asked[0])
            if answer is not None:
                answers.append((self._asked.popleft().origin[0], answer))
        while self._joining and self._may_begin:
            self._let_in(next(iter(self._joining.values()))[0])
        if ticked and self._raft.configuration.learners and self._is_free:
            self._promote()
        return answers

    def _do(self, asked: _Asked) -> ServerMessage | None:
        """Begin what was asked.  Returns the answer; None where it is not known yet."""
        try:
            match asked.request:
                case RemoveMember(node_id, force):
                    return self._remove(asked.origin, node_id, force=force)
                case TransferLeadership(node_id):
                    return self._hand_over(asked.origin, node_id)
        except CoordError as error:
            return _failed(asked.origin, _code_of(error), error.message)

    def _remove(self, origin: Origin, node_id: NodeId, *, force: bool) -> ServerMessage | None:
        if node_id not in everyone(self._raft.configuration):
            return Reply(origin[1], Done())
        if self._raft.configuration.voters == (node_id,):
            raise InvalidRequest(f"{self._name(node_id)} is the only voter: without it there is no cluster")
        if not force and not self._is_settled:
            self._unsettled = True
            return None
        if not force and (fault := self._fault_of_removal(node_id)):
            raise Unsafe(f"{fault}.  Start what is down, or let another node join first; or force it")
        if node_id == self._raft.node_id:
            return self._hand_over(origin, NOBODY)
        self._append(_Change((MembershipStep(StepKind.REMOVE, node_id),)))
        self._asked.popleft()
        self._waiting_for_it = origin
        return None

    def _fault_of_removal(self, node_id: NodeId) -> str:
        """Return why those that are left could not go on by themselves; empty where they could."""
        left = [voter for voter in self._raft.configuration.voters if voter != node_id]
        silent = [node for node in left if not self._is_active(node)]
        if len(left) - len(silent) >= len(left) // 2 + 1:
            return ""
        names = ", ".join(map(self._name, silent))
        return f"without {self._name(node_id)} no majority would be left that works: {names} not heard lately"

    def _hand_over(self, origin: Origin, to: NodeId) -> ServerMessage | None:
        """Let another voter take over; whoever asked is sent there when it has."""
        raft = self._raft
        if to == raft.node_id:
            return Reply(origin[1], Done())
        raft.transfer(to or self._successor())
        self._handing_over = True
        return None

    def _successor(self) -> NodeId:
        others = [each for each in self._raft.progress() if each.node_id != self._raft.node_id and not each.is_learner]
        best = max((each for each in others if each.is_active), key=lambda each: each.match, default=None)
        if best is None:
            raise Unavailable("there is no other voter that could take over now")
        return best.node_id

    # --- who joins ----------------------------------------------------------------------------------------------------------------

    def _let_in(self, caller: PeerIdentity) -> None:
        try:
            change = self._check(caller)
            if change is not None:
                self._append(change)
        except CoordError as error:
            if not self._is_settled:
                self._unsettled = True
                return
            # Consensus's own refusals are not known beyond it, and an error that is not known would end the asking.
            self.turned_away.append((caller, Unavailable(error.message) if isinstance(error, Refused) else error))
        self._joining.pop(caller.name, None)

    def _check(self, caller: PeerIdentity) -> _Change | None:
        """Return what makes the caller a member as it says it is; None where it is one.  Raises why it cannot be."""
        if caller.node_id and caller.node_id not in everyone(self._raft.configuration):
            raise self._removed(caller)
        version = max(self._machine_version, self._proposed_version)
        if caller.machine_version < version:
            raise InvalidRequest(
                f"the cluster's machine has version {version}, the release of {caller.name!r} knows up to "
                f"{caller.machine_version}: start a newer release"
            )
        same_name = [member for member in self.in_force if member.name == caller.name]
        if not same_name:
            if len(self.in_force) >= MEMBERS_MAX:
                raise LimitExceeded(f"the cluster has {MEMBERS_MAX} nodes, as many as it takes", limit="members", value=MEMBERS_MAX)
            return self._addition(caller)
        known = same_name[0]
        if known.incarnation == caller.incarnation:
            moved = caller.as_member(known.node_id)
            return None if moved == known else _Change((MembershipStep(StepKind.UPDATE, known.node_id),), (moved,))
        return self._replacement(caller, known)

    def _removed(self, caller: PeerIdentity) -> CoordError:
        """Return what is told to who was a member and says that it has moved.  As a newcomer it would never come: its directory is
        that of the one that was removed.
        """
        who = f"node {caller.name!r} ({caller.node_id})"
        if self._raft.durable_commit < self._changed_at:
            return Unavailable(f"{who} is being removed; ask again in a moment")
        return NodeRemoved(
            f"{who} was removed from this cluster.  Its data directory is of no use any more; to bring the machine back, start it "
            "with --join on an empty one"
        )

    def _addition(self, caller: PeerIdentity, *before: MembershipStep) -> _Change:
        node_id = NodeId(self._raft.last_index + 1)
        return _Change((*before, MembershipStep(StepKind.ADD_LEARNER, node_id)), (caller.as_member(node_id),))

    def _replacement(self, caller: PeerIdentity, known: Member) -> _Change:
        if not caller.replaces:
            raise WrongCluster(
                f"another node is the {caller.name!r} of this cluster: the data directory of this one was lost or is another one, "
                "and it must not vote again under that name.  Start it on its own directory; where that is lost, start it with "
                "--join ADDRESS --replace (and without --init) on an empty one, or remove the lost one first "
                f"(coord members remove {caller.name})"
            )
        if not self._is_settled or self._is_active(known.node_id):
            raise Unavailable(
                f"the {caller.name!r} of this cluster, at {known.peer_address}, was heard a moment ago: it is replaced when it is "
                "gone, and every node needs a name of its own"
            )
        if fault := self._fault_of_removal(known.node_id):
            raise Unavailable(f"{fault}; start what is down")
        return self._addition(caller, MembershipStep(StepKind.REMOVE, known.node_id))

    # --- who is promoted ----------------------------------------------------------------------------------------------------------

    def _promote(self) -> None:
        """Make a voter of the first learner that has caught up."""
        for progress in self._raft.progress():
            if progress.is_learner and self._has_caught_up(progress):
                with suppress(Refused):  # not now: the next tick comes soon
                    self._append(_Change((MembershipStep(StepKind.ADD_VOTER, progress.node_id),)))
                return

    def _has_caught_up(self, learner: PeerProgress) -> bool:
        is_near = learner.match + PROMOTION_LAG_MAX >= self._raft.last_index
        return is_near and learner.recent_active and learner.state is Sending.REPLICATE

    # --- doing it -----------------------------------------------------------------------------------------------------------------

    def _append(self, change: _Change) -> None:
        context = _context_encoder.encode(change.members) if change.members else b""
        self._under_way = self._raft.propose_membership(MembershipChange(change.steps, context=context))

    def _is_active(self, node_id: NodeId) -> bool:
        return node_id == self._raft.node_id or any(
            progress.node_id == node_id and progress.is_active for progress in self._raft.progress()
        )

    def _name(self, node_id: NodeId) -> str:
        member = self.members.get(node_id)
        return f"node {node_id}" if member is None else member.name


def everyone(configuration: Configuration) -> frozenset[NodeId]:
    """Return all ids of a configuration."""
    return frozenset((*configuration.voters, *configuration.outgoing, *configuration.learners, *configuration.learners_next))


def _known_to_all(members: Iterable[Member]) -> int:
    return min((member.machine_version for member in members), default=0)


def members_of(entry: Entry) -> tuple[Member, ...]:
    """Return the members that a CONFIGURATION entry adds or alters."""
    context = decode(entry.data).context
    return _context_decoder.decode(context) if context else ()


def _answer(origin: Origin, result: Done | Failed) -> tuple[int, ServerMessage]:
    return origin[0], Reply(origin[1], result)


def _failed(origin: Origin, code: str, message: str) -> Reply:
    return Reply(origin[1], Failed(code, message, {}))


def _code_of(error: CoordError) -> str:
    """Consensus's own refusals are not known beyond it: it cannot be so (who is to lead does not vote), or not now."""
    if isinstance(error, TransferRefused):
        return "InvalidRequest"
    return "Unavailable" if isinstance(error, Refused) else error.code


def _not_taken_over() -> Failed:
    return Failed("Unavailable", "the other node did not take over within an election timeout; this one leads on", {})
