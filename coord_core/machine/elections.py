"""Leader elections: candidates in order of arrival, the first leads.

Like a lock whose waiters do not wait for an answer: who enters is told at once that it can be elected, and is told through its
subscription when it is.

Rules:
- An election exists while it has a leader, and it has a leader while it has a candidate.
- An epoch is the index of the entry that elected.  No entry elects twice in one election: all who end in an entry are out before
  anybody is elected in their place.
- A candidate is also a subscription, under the same number: it ends with it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import msgspec

from coord_core import errors
from coord_core.machine import refusals
from coord_core.machine.bounds import CANDIDATES_PER_ELECTION_MAX, WAITERS_NAMED_MAX
from coord_core.machine.claims import owner_of
from coord_core.machine.detached import Detached
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.names import Named, Names
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.stream import decode
from coord_core.machine.streams import StreamName, Streams
from coord_core.protocol.base import Owner
from coord_core.protocol.elections import (
    Candidate,
    ElectionEnter,
    ElectionInfo,
    ElectionResign,
    ElectionState,
    ElectionTransfer,
    Entered,
    LeaderElected,
    LeaderGone,
)
from coord_core.protocol.locks import ListedLock, LockParty
from coord_core.protocol.results import Done, Failed, Result
from coord_core.types import AttachmentId, CandidateId, Epoch, FencingToken, RequestNumber, SubscriptionId

_NO_EPOCH = Epoch(0)
_DONE = Done()


class Runner:
    """One candidate: first it waits, perhaps, then it leads."""

    __slots__ = ("attachment", "epoch", "id", "owner", "path", "request", "since_ms")

    def __init__(self, number: CandidateId, path: str, attachment: Attachment, request: RequestNumber, owner: Owner) -> None:
        self.id = number
        self.path = path
        self.attachment = attachment
        self.request = request
        self.owner = owner
        #: Cluster time at which it began to wait, or was elected.
        self.since_ms = 0
        #: 0 while it waits.
        self.epoch = _NO_EPOCH


class Election(Named):
    __slots__ = ("leader", "waiting")

    kind: ClassVar[str] = "election"

    def __init__(self, leader: Runner) -> None:
        self.leader = leader
        #: In order of arrival.
        self.waiting: OrderedDict[CandidateId, Runner] = OrderedDict()


class RunnerRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A candidate in a snapshot.  The path is its election's."""

    id: CandidateId
    attachment: AttachmentId
    request: RequestNumber
    #: None: the attachment's.
    owner: Owner | None
    since_ms: int
    epoch: Epoch


class ElectionRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An election in a snapshot."""

    path: str
    leader: RunnerRow
    #: In order of arrival.
    waiting: list[RunnerRow]


_decode = msgspec.msgpack.Decoder(list[ElectionRow]).decode

#: About what a row takes besides the path, and for each candidate.
_ROW_BYTES = 48


class Elections:
    __slots__ = ("_entry", "_names", "_runners", "_sessions", "_streams")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, streams: Streams) -> None:
        self._entry = entry
        self._sessions = sessions
        self._names = names
        self._streams = streams
        # The candidates of each attachment that has any.
        self._runners: dict[AttachmentId, dict[CandidateId, Runner]] = {}

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {ElectionEnter: self._enter, ElectionResign: self._resign, ElectionTransfer: self._transfer}

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {ElectionInfo: self._info}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Election.kind: self._state}

    # --- operations --------------------------------------------------------------------------------------------------------------

    def _enter(self, attachment: Attachment, request: RequestNumber, operation: ElectionEnter) -> Result:
        owner = owner_of(attachment, operation.owner)
        if isinstance(owner, Failed):
            return owner
        fault = self._streams.check_room(Election.kind, operation.path)
        if fault is not None:
            return fault
        election = self._names.find(operation.path, Election)
        if isinstance(election, Failed):
            return election
        runner = Runner(CandidateId(self._entry.index), operation.path, attachment, request, owner)
        runner.since_ms = self._entry.time_ms
        if election is not None and attachment.detached is not None:
            answer = self._take_up(election, runner, attachment.detached, fences=operation.fences)
            if answer is not None:
                return answer
        if election is None:
            fault = self._names.bind(runner.path, Election(runner))
            if fault is not None:
                return fault
        elif len(election.waiting) + 1 >= CANDIDATES_PER_ELECTION_MAX:
            return _too_many()
        else:
            election.waiting[runner.id] = runner
        self._index(runner)
        if election is None:
            self._elect(runner)
        fault = self._subscribe(runner)
        return fault or Entered(runner.id, runner.epoch)

    def _take_up(self, election: Election, runner: Runner, detached: Detached, *, fences: bool) -> Result | None:
        """Enter for a detached session: it may be a candidate already, or a lower attempt may; None: neither."""
        found = [it for each in detached.line for it in self._of_attachment(each, runner.path)]
        inherited = [it for it in found if it.attachment is runner.attachment and it.request <= detached.inherited]
        if inherited:
            own = max(inherited, key=_epoch)
            own.request, own.owner = runner.request, runner.owner
            return Entered(own.id, own.epoch)
        elders = [it for it in found if detached.is_later_than(it.attachment.detached)]
        if not elders:
            return None
        leading = next((it for it in elders if it is election.leader), None)
        if leading is not None and (fences or not self._may_act(leading)):
            election.leader, gone = runner, elders
        else:
            gone = [it for it in elders if it is not leading]
            if not gone and len(election.waiting) + 1 >= CANDIDATES_PER_ELECTION_MAX:
                return _too_many()
            _put_in_place(election, runner, gone, first=leading is not None)
        for elder in gone:
            election.waiting.pop(elder.id, None)
            self._unindex(elder)
            self._streams.end(SubscriptionId(elder.id))
        self._index(runner)
        if election.leader is runner:
            self._elect(runner)
        return self._subscribe(runner) or Entered(runner.id, runner.epoch)

    def _may_act(self, elder: Runner) -> bool:
        """Whether a process of a lower attempt may still believe that it leads."""
        detached = elder.attachment.detached
        assert detached is not None
        return detached.is_attended or bool(detached.believed_ms(elder.epoch, self._entry.time_ms))

    def _of_attachment(self, attachment: Attachment, path: str) -> list[Runner]:
        runners = self._runners.get(attachment.id, {})
        return [runners[number] for number in sorted(runners) if runners[number].path == path]

    def _resign(self, attachment: Attachment, request: RequestNumber, operation: ElectionResign) -> Result:
        election = self._names.find(operation.path, Election)
        if isinstance(election, Failed):
            return election
        runner = None if election is None else _runner(election, operation.candidate)
        if election is None or runner is None:
            return _DONE
        if runner.attachment is not attachment:
            message = f"candidate {operation.candidate} of {operation.path} is another process's"
            return refusals.refuse(errors.NotHolder, message, path=operation.path, candidate=operation.candidate)
        self._leave(election, runner)
        return _DONE

    def _transfer(self, attachment: Attachment, request: RequestNumber, operation: ElectionTransfer) -> Result:
        election = self._names.find(operation.path, Election)
        if isinstance(election, Failed):
            return election
        if election is None or election.leader.epoch != operation.epoch:
            message = f"{operation.path} is not led under epoch {operation.epoch}"
            return refusals.refuse(errors.NotHolder, message, path=operation.path, epoch=operation.epoch)
        to = operation.to or next(iter(election.waiting), None)
        if to == election.leader.id:
            return _DONE
        successor = None if to is None else election.waiting.pop(to, None)
        if successor is None:
            return refusals.invalid("to", f"{operation.path} has no {'other candidate' if to is None else f'candidate {to}'}")
        former, election.leader = election.leader, successor
        former.epoch, former.since_ms = _NO_EPOCH, self._entry.time_ms
        election.waiting[former.id] = former
        self._elect(successor)
        return _DONE

    # --- what happens to a candidate ---------------------------------------------------------------------------------------------

    def _elect(self, runner: Runner) -> None:
        assert runner.attachment.alive, "who waits leaves in the entry that ends its attachment"
        assert runner.epoch < self._entry.index, "an entry elects once"
        runner.epoch = Epoch(self._entry.index)
        runner.since_ms = self._entry.time_ms
        self._streams.emit(_stream(runner.path), LeaderElected(self._told(runner)))

    def _subscribe(self, runner: Runner) -> Failed | None:
        answer = self._streams.subscribe(_stream(runner.path), runner.attachment)
        if not isinstance(answer, Failed):
            return None
        # No room for one more name: as if it had never entered.
        election = self._names.find(runner.path, Election)
        assert isinstance(election, Election), "it has just entered"
        self._leave(election, runner)
        return answer

    def _leave(self, election: Election, runner: Runner) -> None:
        """Take a candidate out, wherever it stands; the next one leads from this entry on."""
        self._unindex(runner)
        if election.leader is not runner:
            del election.waiting[runner.id]
        elif election.waiting:
            _, election.leader = election.waiting.popitem(last=False)
            self._elect(election.leader)
        else:
            self._names.drop(runner.path)
            self._streams.emit(_stream(runner.path), LeaderGone(runner.epoch))
        self._streams.end(SubscriptionId(runner.id))

    def _election_of(self, runner: Runner) -> Election:
        election = self._names.get(runner.path)
        assert type(election) is Election, "a candidate's election exists as long as the candidate"
        return election

    def _index(self, runner: Runner) -> None:
        self._runners.setdefault(runner.attachment.id, {})[runner.id] = runner

    def _unindex(self, runner: Runner) -> None:
        runners = self._runners[runner.attachment.id]
        del runners[runner.id]
        if not runners:
            del self._runners[runner.attachment.id]

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        # In two rounds: who waits and ends must be out of the queue before anybody is elected.
        for leads in (False, True):
            for attachment in ended:
                runners = self._runners.get(attachment.id, {})
                for number in sorted(runners):
                    if bool(runners[number].epoch) is leads:
                        self._leave(self._election_of(runners[number]), runners[number])

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """Candidacies pass on: see `_take_up`."""

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        for runner in self._runners.get(attachment.id, {}).values():
            if runner.request == request:
                attachment.window.settle(request, answer)
                self._leave(self._election_of(runner), runner)
                return True
        return False

    def holdings(self, attachment: Attachment) -> int:
        return sum(1 for runner in self._runners.get(attachment.id, {}).values() if runner.epoch)

    def state(self) -> list[Any]:
        return [
            (path, _runner_state(election.leader), [_runner_state(runner) for runner in election.waiting.values()])
            for path, election in self.all()
        ]

    @property
    def named(self) -> type[Election]:
        return Election

    def row(self, path: str, election: Election) -> tuple[ElectionRow, int]:
        waiting = [_row(runner) for runner in election.waiting.values()]
        return ElectionRow(path, _row(election.leader), waiting), len(path) + _ROW_BYTES * (1 + len(waiting))

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[ElectionRow] = decode(_decode, rows)
        for row in found:
            election = Election(self._restored(row.path, row.leader))
            for waiting in row.waiting:
                election.waiting[waiting.id] = self._restored(row.path, waiting)
            self._names.restore(row.path, election)
        return len(found)

    def _restored(self, path: str, row: RunnerRow) -> Runner:
        attachment = self._sessions.attachment(row.attachment)
        runner = Runner(row.id, path, attachment, row.request, row.owner or attachment.owner)
        runner.since_ms, runner.epoch = row.since_ms, row.epoch
        self._index(runner)
        return runner

    # --- looking -----------------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, Election]]:
        """Return every election with its path, in order of paths."""
        return self._names.of_type(Election)

    def listed(self, path: str, election: Election) -> ListedLock:
        leader = election.leader
        attachment, since_ms = leader.attachment, self._entry.time_ms - leader.since_ms
        holder = LockParty(attachment.session, attachment.number, leader.owner, since_ms, FencingToken(leader.epoch))
        return ListedLock(path, Election.kind, 1, 1, holder, len(election.waiting))

    def _info(self, query: ElectionInfo) -> ElectionState | Failed:
        return self._state(query.path, max(0, min(query.candidates_max, WAITERS_NAMED_MAX)))

    def _state(self, path: str, named: int = 0) -> ElectionState | Failed:
        election = self._names.find(path, Election)
        if election is None:
            return ElectionState(None, (), 0)
        if isinstance(election, Failed):
            return election
        candidates = tuple(map(self._told, islice(election.waiting.values(), named)))
        return ElectionState(self._told(election.leader), candidates, len(election.waiting))

    def _told(self, runner: Runner) -> Candidate:
        attachment, since_ms = runner.attachment, self._entry.time_ms - runner.since_ms
        return Candidate(runner.id, attachment.session, attachment.number, runner.owner, runner.epoch, since_ms)


def _put_in_place(election: Election, runner: Runner, elders: Sequence[Runner], *, first: bool) -> None:
    """Let a candidate wait where the first of its elders does; before all others where none does, or another of them leads."""
    order = list(election.waiting.values())
    at = 0 if first or not elders else min(order.index(elder) for elder in elders)
    order.insert(at, runner)
    election.waiting = OrderedDict((it.id, it) for it in order)


def _too_many() -> Failed:
    return refusals.over_limit("candidates of an election", CANDIDATES_PER_ELECTION_MAX, CANDIDATES_PER_ELECTION_MAX + 1)


def _stream(path: str) -> StreamName:
    return Election.kind, path


def _runner(election: Election, number: CandidateId) -> Runner | None:
    return election.leader if election.leader.id == number else election.waiting.get(number)


def _epoch(runner: Runner) -> int:
    """By this the one that leads comes first; of those that wait, who has waited longest."""
    return runner.epoch


def _runner_state(runner: Runner) -> tuple[Any, ...]:
    owner = msgspec.structs.astuple(runner.owner)
    return runner.id, runner.attachment.id, runner.request, owner, runner.since_ms, runner.epoch


def _row(runner: Runner) -> RunnerRow:
    # The same record: one that is only equal may be that of a process that took the session up since the snapshot began.
    owner = None if runner.owner is runner.attachment.owner else runner.owner
    return RunnerRow(runner.id, runner.attachment.id, runner.request, owner, runner.since_ms, runner.epoch)
