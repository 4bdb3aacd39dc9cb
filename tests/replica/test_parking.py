"""Parked messages between the machine and the disk: stored on every node, handed out by whoever leads, gone with their pieces."""

import pytest

from coord_core.protocol.base import Owner
from coord_core.protocol.messages import Ask, Told
from coord_core.protocol.parking import Delivery, Park, Parked, ParkingClaim, ParkingCommit, ParkingFetch, ParkingFetched, Unpark
from coord_core.protocol.results import Failed
from coord_core.replica import SnapshotInstalled, fetches
from coord_core.replica import records as bounds
from coord_core.types import NodeId
from tests.replica.nodes import Nodes

LOT = "/lot"


class Lots(Nodes):
    """Nodes, and one client that parks pieces whose gates are free, and fetches what is called."""

    fetches = 0

    def do(self, operation: object) -> object:
        leader = self.elect()
        return self.ask(leader, self.session(leader), operation)  # type: ignore[arg-type]

    def park(self, *numbers: int, size: int = 20) -> None:
        for number in numbers:
            message = str(number).encode().ljust(size, b".")
            assert isinstance(self.do(Park(LOT, str(number), str(number), message, f"/{number}")), Parked)

    def fetch(self, start: int = 0, deliveries_max: int = 100) -> ParkingFetched | Failed:
        self.fetches += 1
        leader, seq = self.elect(), 500_000 + self.fetches
        self.replicas[leader].request(88, Ask(seq, ParkingFetch(LOT, start, deliveries_max)))
        self.wait(lambda: (88, seq) in self.answers)
        told = self.answers[88, seq]
        assert isinstance(told, Told)
        return told.answer  # type: ignore[return-value]

    def deliveries(self, start: int = 0) -> list[Delivery]:
        fetched = self.fetch(start)
        assert isinstance(fetched, ParkingFetched)
        return list(fetched.deliveries)

    def stored(self, node: int) -> int:
        """How many logs a node has rows of."""
        found = self.disks[node].clone().load()
        assert found is not None
        return len(found.held)


@pytest.fixture
def forget_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is stored stays in memory."""
    monkeypatch.setattr(bounds, "TAIL_RECORDS_MAX", 0)


def messages(deliveries: list[Delivery]) -> list[tuple[int, str, bytes]]:
    return [(each.offset, each.id, each.message.rstrip(b".")) for each in deliveries]


def expected(*numbers: int) -> list[tuple[int, str, bytes]]:
    return [(number, str(number), str(number).encode()) for number in numbers]


def test_what_was_called_lately_is_handed_out_without_the_disk() -> None:
    """As it was parked, in order, and with where to go on."""
    nodes = Lots()
    nodes.park(*range(10))
    fetched = nodes.fetch(2, 5)
    assert isinstance(fetched, ParkingFetched)
    assert messages(list(fetched.deliveries)) == expected(2, 3, 4, 5, 6)
    assert (fetched.next, fetched.end) == (7, 10)
    assert nodes.read_from_disk == 0
    assert nodes.deliveries(10) == []


@pytest.mark.usefixtures("forget_at_once")
def test_older_messages_come_from_the_disk_each_from_its_bin() -> None:
    """Large ones fill a bin with a few."""
    nodes = Lots()
    nodes.park(*range(6), size=100_000)
    nodes.advance(2_000)
    assert messages(nodes.deliveries()) == expected(0, 1, 2, 3, 4), "half a megabyte at a time"
    assert messages(nodes.deliveries(5)) == expected(5)
    assert nodes.read_from_disk == 6
    assert nodes.stored(1) == 3


@pytest.mark.usefixtures("forget_at_once")
@pytest.mark.parametrize("moment_ms", [0, 50, 300, 2_000])
def test_all_messages_are_there_after_all_nodes_lost_power(moment_ms: int) -> None:
    """Those that were stored, and those that were only in the log; and those that were taken away are not."""
    nodes = Lots()
    nodes.park(*range(30))
    nodes.do(Unpark(LOT, "7", "7"))
    nodes.advance(moment_ms)
    for node in list(nodes.disks):
        nodes.crash(node)
    for node in list(nodes.disks):
        nodes.start(node)
    nodes.park(30)
    assert messages(nodes.deliveries()) == expected(*(number for number in range(31) if number != 7))


def test_rows_go_with_the_last_piece_of_their_bin() -> None:
    """From every disk, with what is written next."""
    nodes = Lots()
    nodes.park(*range(6), size=100_000)
    nodes.do(ParkingClaim(LOT, Owner("host", 1)))
    nodes.do(ParkingCommit(LOT, 5))
    for _ in range(3):
        nodes.advance(1_000)
        nodes.load(1)
    assert [nodes.stored(node) for node in nodes.disks] == [1, 1, 1]
    assert messages(nodes.deliveries()) == expected(5)


@pytest.mark.usefixtures("forget_at_once")
def test_a_node_that_lacks_everything_gets_the_messages_with_the_snapshot() -> None:
    """And hands them out when it leads."""
    nodes = Lots()
    if nodes.elect() == 3:
        nodes.replicas[3].transfer_leadership(NodeId(1))
        nodes.wait(lambda: nodes.elect() != 3)
    nodes.crash(3)
    nodes.park(*range(40), size=20_000)
    nodes.advance(2_000)
    nodes.start(3)
    nodes.wait(nodes.are_level)
    nodes.advance(2_000)
    assert nodes.noted(SnapshotInstalled, 3)
    nodes.replicas[nodes.elect()].transfer_leadership(NodeId(3))
    nodes.wait(lambda: nodes.elect() == 3)
    found = [each for start in (0, 20) for each in nodes.deliveries(start)[:20]]
    assert messages(found) == expected(*range(40))


def test_a_fetch_is_refused_where_too_many_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it is ill-formed."""
    nodes = Lots(1)
    nodes.park(*range(3))
    monkeypatch.setattr(fetches, "FETCHES_MAX", 2)
    refused = nodes.fetch()
    assert isinstance(refused, Failed)
    assert refused.code == "Busy"
    assert len(nodes.deliveries(1)) == 2
    refused = nodes.fetch(-1)
    assert isinstance(refused, Failed)
    assert refused.code == "InvalidRequest"
