"""What `coord status` says of nodes that answer and are not well."""

from typing import Any

from coord_core.cli.exits import Exit
from coord_core.cli.status import _report, _summary, _troubles, _what_is_wrong
from coord_core.client.status import ClusterReport, NodeReport
from coord_core.errors import Unavailable
from coord_core.protocol.members import Member
from coord_core.protocol.messages import NodeStatus
from coord_core.types import NodeId

MIB = 1024 * 1024


def node(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": f"{name}:7400",
        "reachable": True,
        "error": None,
        "disk": "ample",
        "disk_free_bytes": 10**9,
        "disk_needed_bytes": -1,
        "foreign": False,
        "unreached_by": {},
    } | more


MEMBERS = tuple(Member(NodeId(number), f"n{number}", f"n{number}:7400", f"n{number}:7400", "") for number in (1, 2, 3))


def said(name: str, **more: Any) -> NodeReport:
    """What a node of the cluster says; the first leads."""
    known: dict[str, Any] = {"cluster_id": "ours", "members": MEMBERS, "role": "leader" if name == "n1" else "follower"}
    known |= {"voters": tuple(member.node_id for member in MEMBERS), "disk": "ample", "applied_index": 9} | more
    rest: dict[str, Any] = {
        "seq": 1,
        "term": 2,
        "leader": "n1:7400",
        "commit_index": 9,
        "last_index": 9,
        "sessions": 0,
        "version": "1",
    }
    return NodeReport(f"{name}:7400", NodeStatus(node=name, **rest, **known), None)


def silent(name: str) -> NodeReport:
    return NodeReport(f"{name}:7400", None, Unavailable(f"{name}:7400: Connection refused"))


FOREIGN = said("n1", cluster_id="theirs", members=MEMBERS[:1], voters=(NodeId(1),), applied_index=10**6)


def test_a_node_of_another_cluster_is_neither_healthy_nor_leader() -> None:
    """It answers under the name and the address of a member, leads its own cluster, and may well have the longer log."""
    report = _report(ClusterReport((FOREIGN, said("n2", role="leader"), said("n3"))))
    assert (report["leader"], report["cluster_id"], report["quorum"], report["tolerates"]) == ("n2", "ours", True, 0)
    row = report["nodes"][0]
    assert (row["name"], row["reachable"], row["foreign"], row["role"]) == ("n1", False, True, None)
    code, wrong = _what_is_wrong(report)
    assert code == Exit.CONFLICT
    assert "n1 at n1:7400: belongs to another cluster" in wrong
    assert "--join ADDRESS --replace, without --init" in wrong


def test_of_two_clusters_with_one_node_each_the_one_with_more_members_is_meant() -> None:
    """The other was founded by one node alone."""
    report = _report(ClusterReport((FOREIGN, said("n2", role="candidate"), silent("n3"))))
    assert (report["leader"], report["cluster_id"], report["quorum"]) == (None, "ours", False)
    code, wrong = _what_is_wrong(report)
    assert code == Exit.UNAVAILABLE
    assert "start n3 again" in wrong
    assert "belongs to another cluster" in wrong


def test_a_cluster_without_room_for_commands_is_not_well() -> None:
    """Whoever asks before an import, or by a cron job, is told by the first line and by the exit code."""
    refuses = "no room on disk for new commands: node n2 has 3.0 MiB free and needs 82.0 MiB, node n3 is not heard"
    low = said("n2", disk="low", disk_free_bytes=3 * MIB, disk_needed_bytes=82 * MIB)
    report = _report(ClusterReport((said("n1", refuses=refuses), low, silent("n3"))))
    assert report["refuses"] == refuses
    assert _summary(report) == "new commands are refused for want of room on disk (leader n1, term 2)"
    assert _what_is_wrong(report)[0] == Exit.UNAVAILABLE
    assert refuses in _what_is_wrong(report)[1]


def test_a_low_disk_is_none_to_fall_back_on() -> None:
    """Where one of the others failed, commands would be refused."""
    report = _report(ClusterReport((said("n1"), said("n2", disk="low", disk_free_bytes=MIB), said("n3"))))
    assert (report["refuses"], report["tolerates"]) == (None, 0)
    assert _what_is_wrong(report)[0] == Exit.OK


def test_without_a_quorum_the_last_way_out_is_named() -> None:
    """Starting the nodes again comes first."""
    code, wrong = _what_is_wrong(_report(ClusterReport((said("n1", role="candidate"), silent("n2"), silent("n3")))))
    assert code == Exit.UNAVAILABLE
    assert wrong.index("start n2 or n3 again") < wrong.index("coord recover")


def test_why_the_others_cannot_reach_a_node_is_shown_with_it() -> None:
    """A certificate that names another host is seen by who dials, not by who asks."""
    report = _report(ClusterReport((said("n1", unreached={"n2": "n2:7400: certificate"}), silent("n2"), said("n3"))))
    assert _troubles(report) == ["n2 at n2:7400: Connection refused", "n2: n1 cannot reach it: n2:7400: certificate"]
    known = _report(ClusterReport((said("n1", unreached={"n2": "n2:7400: Connection refused"}), silent("n2"), said("n3"))))
    assert _troubles(known) == ["n2 at n2:7400: Connection refused"]
    between = _report(ClusterReport((said("n1", unreached={"n2": "n2:7400: certificate"}), said("n2"), said("n3"))))
    assert _troubles(between) == ["n2: n1 cannot reach it: n2:7400: certificate"]


def test_an_address_of_the_url_that_is_no_members_is_shown_as_that() -> None:
    """A typing error, or a node that has gone for good."""
    report = _report(ClusterReport((said("n1"), said("n2"), said("n3"), silent("n9"))))
    assert _troubles(report) == ["? at n9:7400: Connection refused; no member of this cluster has this address"]


def test_a_disk_that_fills_up_is_named_below_the_table() -> None:
    """With what it has left, and what follows; a node without trouble, or of a storage that does not measure, is not."""
    nodes = [
        node("n1"),
        node("n2", disk="low", disk_free_bytes=3 * MIB, disk_needed_bytes=82 * MIB),
        node("n3", disk="full", disk_free_bytes=0),
        node("n4", disk=""),
    ]
    assert _troubles({"nodes": nodes}) == [
        "n2: 3.0 MiB free, 82.0 MiB needed: where a majority of disks is low, new commands are refused; free some space",
        "n3: 0.0 MiB free: this node stores nothing new and only votes; free some space",
    ]


def test_a_node_that_does_not_answer_has_no_disk_to_speak_of() -> None:
    """Its row has nothing but the reason."""
    dead = node("n1", reachable=False, disk=None, disk_free_bytes=None, error="connection refused")
    assert _troubles({"nodes": [dead]}) == ["n1 at n1:7400: connection refused"]
