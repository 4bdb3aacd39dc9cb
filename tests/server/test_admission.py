"""Who is told with what to begin, and when: a running node's side of joining, without a network."""

from typing import Any, cast

import msgspec
import pytest

from coord_core.errors import Busy, CoordError, InvalidRequest, WrongCluster
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PeerIdentity
from coord_core.server import joining
from coord_core.server.admission import Admission
from coord_core.server.forming import Founding, Registrar
from coord_core.server.joining import Joiner
from coord_core.storage.api import Bootstrap
from coord_core.types import NodeId
from coord_core.wire.frames import FrameParser


def peer(name: str, incarnation: str = "", host: str = "", node_id: int = 0) -> PeerIdentity:
    host = host or name
    return PeerIdentity(name, incarnation or f"life of {name}", f"{host}:1", f"{host}:2", node_id)


def formed() -> Bootstrap:
    founding = Founding(peer("n1"), ("n1", "n2", "n3"))
    founding.call(peer("n2"), "line 2")
    founding.call(peer("n3"), "line 3")
    return founding.close("c" * 32)


class Line:
    """A connection of a node that asks: notes what it was told."""

    def __init__(self) -> None:
        self.transport = self
        self.told: list[Bootstrap] = []
        self.refused: CoordError | None = None

    def write(self, data: bytes) -> None:
        payloads = FrameParser(1_000_000).feed(data)
        self.told += [msgspec.msgpack.decode(payload, type=Bootstrap) for payload in payloads]

    def refuse(self, error: CoordError) -> None:
        self.refused = error


class Gate:
    """The node's loop: notes who asked."""

    def __init__(self) -> None:
        self.asked: list[PeerIdentity] = []

    def join(self, caller: PeerIdentity) -> None:
        self.asked.append(caller)


def desk(gate: Gate | None = None) -> Admission:
    return Admission(formed(), formed().members, gate or Gate())


def call(admission: Admission, caller: PeerIdentity) -> tuple[Line, Joiner]:
    line = Line()
    joiner = admission.admit(cast(Any, line), caller)
    admission.welcomed(joiner)
    return line, joiner


def test_each_founder_gets_the_same_founding_under_its_own_identity() -> None:
    """All start from one and the same empty snapshot, however often they ask."""
    admission, gate = desk(), Gate()
    first, again = call(admission, peer("n3"))[0], call(admission, peer("n3"))[0]
    (theirs,) = first.told
    assert (theirs.identity.node_id, theirs.identity.incarnation) == (3, "life of n3")
    assert (theirs.members, theirs.snapshot, theirs.identity.cluster_id) == (formed().members, formed().snapshot, "c" * 32)
    assert again.told == [theirs]
    assert gate.asked == []


def test_a_newcomer_is_answered_when_it_is_a_member_and_not_before() -> None:
    """Whoever began earlier would believe in an entry that another leader may have cut off."""
    gate = Gate()
    admission = desk(gate)
    line, _ = call(admission, peer("n4"))
    assert line.told == []
    assert gate.asked == [peer("n4")]
    newcomer = Member(NodeId(17), "n4", "n4:1", "n4:2", "life of n4")
    admission.follow((*formed().members, newcomer))
    (theirs,) = line.told
    assert theirs.identity.node_id == 17
    assert theirs.members == (*formed().members, newcomer)
    assert theirs.snapshot == formed().snapshot, "it follows the log from the founding on, or gets a snapshot"


def test_a_node_that_has_moved_is_answered_when_the_cluster_knows_where_to() -> None:
    """Till then it goes on asking."""
    gate = Gate()
    admission = desk(gate)
    line, _ = call(admission, peer("n2", host="elsewhere", node_id=2))
    assert line.told == []
    assert [caller.peer_address for caller in gate.asked] == ["elsewhere:1"]
    moved = msgspec.structs.replace(formed().members[1], peer_address="elsewhere:1", client_address="elsewhere:2")
    admission.follow((formed().members[0], moved, formed().members[2]))
    assert [told.identity.node_id for told in line.told] == [2]


def test_a_node_with_this_nodes_name_is_refused() -> None:
    """Before anybody is asked."""
    gate = Gate()
    with pytest.raises(InvalidRequest, match="this node is named 'n1' too"):
        desk(gate).admit(cast(Any, Line()), peer("n1", "another life"))
    assert gate.asked == []


def test_so_many_wait_and_one_more_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not be let in asks for ever, and a node must not run out of sockets for it."""
    monkeypatch.setattr(joining, "JOINERS_MAX", 2)
    admission = desk()
    call(admission, peer("n4"))
    _, second = call(admission, peer("n5"))
    with pytest.raises(Busy):
        call(admission, peer("n6"))
    admission.hang_up(second)
    call(admission, peer("n6"))
    registrar = Registrar(Founding(peer("n1"), ("n1", "n2")))
    for _ in range(2):
        registrar.admit(cast(Any, Line()), peer("n2"))
    with pytest.raises(Busy):
        registrar.admit(cast(Any, Line()), peer("n2"))


def test_who_has_hung_up_is_told_nothing() -> None:
    """Its connection is closed."""
    admission = desk()
    line, joiner = call(admission, peer("n4"))
    joiner.lost(True)
    admission.follow((*formed().members, Member(NodeId(17), "n4", "n4:1", "n4:2", "life of n4")))
    assert line.told == []


def test_a_founder_that_comes_with_another_disk_while_the_founding_is_written_is_refused_alone() -> None:
    """The forming node has it on its disk by then: to stop because of somebody else's fault would help nobody."""
    registrar = Registrar(Founding(peer("n1"), ("n1", "n2")))
    former = registrar.admit(cast(Any, Line()), peer("n2"))
    assert registrar.founding is not None
    founded = registrar.founding.close("c" * 32)
    registrar.hang_up(former)
    line = Line()
    registrar.admit(cast(Any, line), peer("n2", "new life"))
    gate = Gate()
    admission = Admission(founded, founded.members, gate)
    admission.take_over(registrar.take_waiting())
    assert gate.asked == [peer("n2", "new life")]
    refusal = WrongCluster("another node is the 'n2' of this cluster")
    admission.turn_away(gate.asked[0], refusal)
    assert line.refused is refusal
    assert line.told == []
