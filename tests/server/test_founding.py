"""Who may found a cluster, decided without a network: the rules behind --init, --founders and --join."""

from typing import Any, cast

import pytest

from coord_core.errors import CoordError, InvalidRequest, WrongCluster
from coord_core.protocol.messages import PeerIdentity
from coord_core.server.forming import Founding, Registrar, bootstrap_for


def peer(name: str, incarnation: str = "") -> PeerIdentity:
    return PeerIdentity(name, incarnation or f"life of {name}", f"{name}:1", f"{name}:2")


def founded() -> Founding:
    founding = Founding(peer("n1"), ("n2", "n1", "n3"))
    founding.call(peer("n3"), "line 3")
    founding.call(peer("n2"), "line 2")
    return founding


def test_founders_are_numbered_in_the_order_in_which_they_were_named() -> None:
    """Not in the order of their calls: forming again after a crash must not depend on who was faster."""
    bootstrap = founded().close("c" * 32)
    assert [(member.node_id, member.name) for member in bootstrap.members] == [(1, "n2"), (2, "n1"), (3, "n3")]
    assert (bootstrap.snapshot.index, bootstrap.snapshot.term) == (1, 1)
    assert bootstrap.snapshot.configuration.voters == (1, 2, 3)
    assert bootstrap.identity.node_id == 2


def test_each_founder_gets_the_same_founding_under_its_own_identity() -> None:
    """All start from one and the same empty snapshot."""
    formed = founded().close("c" * 32)
    theirs = bootstrap_for(formed, peer("n3"))
    assert theirs.identity.node_id == 3
    assert theirs.identity.incarnation == "life of n3"
    assert (theirs.members, theirs.snapshot, theirs.identity.cluster_id) == (formed.members, formed.snapshot, "c" * 32)
    assert bootstrap_for(formed, peer("n3")) == theirs


def test_without_founders_a_node_is_a_cluster_by_itself() -> None:
    """`coord server --init` alone."""
    founding = Founding(peer("n1"), ())
    assert founding.missing() == []
    assert [member.name for member in founding.close("c").members] == ["n1"]


def test_a_founder_that_hangs_up_is_missing_again() -> None:
    """It may come back with another disk, and the founding must name the one that is there."""
    founding = founded()
    assert founding.missing() == []
    founding.hang_up(peer("n2"), "another line")
    assert founding.missing() == []
    founding.hang_up(peer("n2"), "line 2")
    assert founding.missing() == ["n2"]
    founding.call(peer("n2", "new life"), "line 4")
    assert founding.close("c").members[0].incarnation == "new life"


def test_a_name_that_is_no_founders_is_refused() -> None:
    """The message says both cures."""
    with pytest.raises(InvalidRequest, match=r"'n4' is not among the founders of this cluster \(n2, n1, n3\)"):
        founded().call(peer("n4"), "line")


def test_two_nodes_of_one_name_are_refused() -> None:
    """Whether the other is a third node or the forming one; the same node calling twice is none."""
    founding = founded()
    with pytest.raises(InvalidRequest, match="another node named 'n2' at n2:1 waits already"):
        founding.call(peer("n2", "other disk"), "line")
    with pytest.raises(InvalidRequest, match="the node with --init is named 'n1' too"):
        founding.call(peer("n1"), "line")
    founding.call(peer("n2"), "new line")
    founding.hang_up(peer("n2"), "line 2")
    assert founding.missing() == []


def test_a_founder_that_lost_its_disk_is_refused() -> None:
    """It has forgotten its votes: under the old name it could vote twice in one term."""
    with pytest.raises(WrongCluster, match="its data directory was lost"):
        bootstrap_for(founded().close("c"), peer("n3", "new life"))


def test_a_formed_cluster_refuses_who_is_none_of_its_founders() -> None:
    """And a second node with the name of the one that is asked."""
    formed = founded().close("c")
    with pytest.raises(WrongCluster, match="cluster c is formed already, of n2, n1, n3; 'n4' is none of them"):
        bootstrap_for(formed, peer("n4"))
    with pytest.raises(InvalidRequest, match="this node is named 'n1' too"):
        bootstrap_for(formed, peer("n1"))


class Line:
    """A founder's connection to the registrar: notes why it was refused."""

    def __init__(self) -> None:
        self.refused: CoordError | None = None

    def refuse(self, error: CoordError) -> None:
        self.refused = error


async def test_a_founder_that_comes_with_another_disk_while_the_founding_is_written_is_refused_alone() -> None:
    """The forming node has it on its disk by then: to stop because of somebody else's fault would help nobody."""
    registrar = Registrar(Founding(peer("n1"), ("n1", "n2")))
    former = registrar.admit(cast(Any, Line()), peer("n2"))
    assert registrar.founding is not None
    formed = registrar.founding.close("c" * 32)
    registrar.hang_up(former)
    line = Line()
    registrar.admit(cast(Any, line), peer("n2", "new life"))
    registrar.formed(formed)
    assert isinstance(line.refused, WrongCluster)
