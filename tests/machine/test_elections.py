"""The election: first come, first leads; an epoch for each leader; the dead lead nobody (spec: DistributedLeaderElection)."""

import pytest

from coord_core.machine import elections
from coord_core.machine import names as names_module
from coord_core.protocol.elections import ElectionEnter, ElectionResign, ElectionTransfer, LeaderElected, LeaderGone
from coord_core.protocol.operations import Cancel
from coord_core.protocol.results import Done, Result
from coord_core.types import CandidateId, Epoch, RequestNumber
from tests.machine.driver import OWNER, Log, Process, code
from tests.machine.test_snapshot import restored, written


@pytest.fixture
def log() -> Log:
    return Log()


def leader(log: Log) -> tuple[int, int]:
    """Candidate and epoch; zeros where nobody leads."""
    found = log.election().leader
    return (0, 0) if found is None else (found.candidate, found.epoch)


def resign(process: Process, candidate: int) -> Result | None:
    return process.call(ElectionResign("/e", CandidateId(candidate))).result


def transfer(process: Process, epoch: int, to: int = 0) -> Result | None:
    return process.call(ElectionTransfer("/e", Epoch(epoch), CandidateId(to))).result


def test_first_candidate_leads_from_the_entry_with_which_it_entered(log: Log) -> None:
    """Nobody else could: the epoch is that entry's index."""
    entered = log.open().enter()
    assert [int(entered.candidate), int(entered.epoch)] == [log.index] * 2
    assert leader(log) == (entered.candidate, entered.epoch)


def test_others_wait_in_order_of_arrival_and_are_electable_at_once(log: Log) -> None:
    """`on_election` completes when the candidate can be elected, not when it is."""
    first, second, third = (log.open().enter() for _ in range(3))
    assert (second.epoch, third.epoch) == (0, 0)
    state = log.election()
    assert [candidate.candidate for candidate in state.candidates] == [second.candidate, third.candidate]
    assert state.candidates_total == 2
    assert leader(log) == (first.candidate, first.epoch)


def test_next_candidate_leads_in_the_entry_that_ends_the_leader(log: Log) -> None:
    """No moment without a leader, and none with two."""
    process = log.open()
    process.enter()
    second = log.open().enter()
    process.expire()
    assert leader(log) == (second.candidate, log.index)


def test_epochs_rise_also_where_the_election_was_gone_in_between(log: Log) -> None:
    """A dropped name comes again; its epochs do not."""
    process = log.open()
    first = process.enter()
    assert resign(process, first.candidate) == Done()
    assert leader(log) == (0, 0)
    assert process.enter().epoch > first.epoch


def test_who_waits_can_resign_too(log: Log) -> None:
    """And is passed over when its turn would have come."""
    one, two, three = log.open(), log.open(), log.open()
    first, second, third = one.enter(), two.enter(), three.enter()
    assert resign(two, second.candidate) == Done()
    assert resign(one, first.candidate) == Done()
    assert leader(log) == (third.candidate, log.index)


def test_resigning_twice_is_fine_and_for_another_is_refused(log: Log) -> None:
    """A resend finds it done; a mistake ends nobody else's leadership."""
    one, two = log.open(), log.open()
    first = one.enter()
    assert code(resign(two, first.candidate)) == "NotHolder"
    assert resign(one, first.candidate) == Done()
    assert resign(one, first.candidate) == Done()


def test_session_with_all_its_candidates_ends_in_one_entry(log: Log) -> None:
    """None of them may inherit from another of the same session."""
    one, other = log.open(), log.open()
    one.enter()
    one.enter()
    one.attach().enter()
    last = other.enter()
    one.expire()
    assert leader(log) == (last.candidate, log.index)
    assert log.election().candidates_total == 0


def test_leader_that_ends_with_its_session_is_not_followed_by_another_of_it(log: Log) -> None:
    """Also where a later process of the session leads and the first one waits."""
    one, other = log.open(), log.open()
    one.attach().enter()
    one.enter()
    last = other.enter()
    one.expire()
    assert leader(log) == (last.candidate, log.index)


def test_cancelled_candidacy_is_undone(log: Log) -> None:
    """Its caller turned away: it must not be elected for nobody."""
    one, two = log.open(), log.open()
    one.enter()
    second = two.enter()
    one.call(Cancel(RequestNumber(one.last_request)))
    assert leader(log) == (second.candidate, log.index)
    assert log.read("election", "/e", second.candidate), "only the one that is left is subscribed"
    assert len(log.machine.streams.audience(("election", "/e"))) == 1


def test_leadership_is_handed_to_a_candidate_by_its_epoch(log: Log) -> None:
    """The former leader goes to the end of the queue; its epoch is over."""
    first, second, third = (log.open().enter() for _ in range(3))
    operator = log.open()
    assert transfer(operator, first.epoch, third.candidate) == Done()
    assert leader(log) == (third.candidate, log.index)
    assert [candidate.candidate for candidate in log.election().candidates] == [second.candidate, first.candidate]
    assert all(candidate.epoch == 0 for candidate in log.election().candidates)


def test_transfer_under_another_epoch_is_refused(log: Log) -> None:
    """Who read an older state must not depose a leader that it has not seen."""
    first, second = log.open().enter(), log.open().enter()
    operator = log.open()
    assert code(transfer(operator, first.epoch - 1, second.candidate)) == "NotHolder"
    assert leader(log) == (first.candidate, first.epoch)


def test_transfer_without_a_successor_is_refused(log: Log) -> None:
    """To whom it should go must be there."""
    first = log.open().enter()
    operator = log.open()
    assert code(transfer(operator, first.epoch)) == "InvalidRequest"
    assert code(transfer(operator, first.epoch, 999)) == "InvalidRequest"
    assert transfer(operator, first.epoch, first.candidate) == Done()


def test_changes_of_the_leader_are_told(log: Log) -> None:
    """Each once, with the revision as epoch; to the candidates, which are subscribed, and to others."""
    watcher, one, two = log.open(), log.open(), log.open()
    begun = watcher.subscribe("election", "/e")
    first, second = one.enter(), two.enter()
    one.close()
    deposed = log.index
    resign(two, second.candidate)
    told = [changes for _, _, changes in log.read("election", "/e", begun)]
    assert [type(change) for (change,) in told] == [LeaderElected, LeaderElected, LeaderGone]
    assert [revision for revision, _, _ in log.read("election", "/e", begun)] == [first.epoch, deposed, log.index]
    assert log.read("election", "/e", deposed)[0][2] == (LeaderGone(Epoch(deposed)),)


def test_candidate_that_finds_no_room_has_not_entered(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused means refused: also where it would have been elected at once."""
    process = log.open()
    monkeypatch.setattr(names_module, "NAMES_MAX", 1)
    assert code(process.call(ElectionEnter("/e", OWNER)).result) == "LimitExceeded"
    assert leader(log) == (0, 0)


def test_bound_of_candidates(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, and told how many there may be."""
    monkeypatch.setattr(elections, "CANDIDATES_PER_ELECTION_MAX", 2)
    for _ in range(2):
        log.open().enter()
    assert code(log.open().call(ElectionEnter("/e", OWNER)).result) == "LimitExceeded"


def test_snapshot_has_the_election(log: Log) -> None:
    """Epochs, order and subscriptions are the same on a node that is made from it."""
    one = log.open()
    one.enter()
    second = log.open().enter()
    twin = Log()
    twin.machine, twin.index, twin.time_ms = restored(written(log.machine)), log.index, log.time_ms
    one.log = twin
    one.expire()
    assert leader(twin) == (second.candidate, twin.index)
