"""Who may found a cluster, decided without a network: the rules behind --init, --founders and --join."""

import pytest

from coord_core.errors import InvalidRequest, Unavailable
from coord_core.protocol.messages import PeerIdentity
from coord_core.server.forming import Founding


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
    assert (bootstrap.snapshot.index, bootstrap.snapshot.term) == (3, 1), "a node that joins gets an id above all founders'"
    assert bootstrap.snapshot.configuration.voters == (1, 2, 3)
    assert bootstrap.identity.node_id == 2


def test_without_founders_a_node_is_a_cluster_by_itself() -> None:
    """`coord server --init` alone."""
    founding = Founding(peer("n1"), ())
    assert founding.missing() == []
    assert [member.name for member in founding.close("c").members] == ["n1"]


def test_who_asks_a_node_that_founds_by_itself_asks_again_in_a_moment() -> None:
    """It joins the cluster as soon as that is there; to be told for good that it is no founder would end it."""
    with pytest.raises(Unavailable, match="founds its cluster just now: ask again in a moment"):
        Founding(peer("n1"), ()).call(peer("n2"), "line")


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
