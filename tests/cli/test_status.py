"""What `coord status` says of nodes that answer and are not well."""

from typing import Any

from coord_core.cli.status import _troubles


def node(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": f"{name}:7400",
        "reachable": True,
        "error": None,
        "disk": "ample",
        "disk_free_bytes": 10**9,
    } | more


def test_a_disk_that_fills_up_is_named_below_the_table() -> None:
    """With what it has left, and what follows; a node without trouble, or of a storage that does not measure, is not."""
    nodes = [
        node("n1"),
        node("n2", disk="low", disk_free_bytes=3_200_000),
        node("n3", disk="full", disk_free_bytes=0),
        node("n4", disk=""),
    ]
    assert _troubles({"nodes": nodes}) == [
        "n2: 3.2 MB free: where a majority of disks is low, new commands are refused; free some space",
        "n3: 0.0 MB free: this node stores nothing new and only votes; free some space",
    ]


def test_a_node_that_does_not_answer_has_no_disk_to_speak_of() -> None:
    """Its row has nothing but the reason."""
    silent = node("n1", reachable=False, disk=None, disk_free_bytes=None, error="connection refused")
    assert _troubles({"nodes": [silent]}) == ["n1 at n1:7400: connection refused"]
