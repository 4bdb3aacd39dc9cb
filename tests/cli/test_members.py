"""`coord members` as a process, against real nodes."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coord_core.cli.exits import Exit
from tests.cli.running import COORD, Dev, coord, until

StartDev = Callable[..., Dev]


@pytest.fixture
def fourth(tmp_path: Path) -> Iterator[Callable[[Dev], "subprocess.Popen[str]"]]:
    """Start one more node beside a running cluster."""
    started: list[subprocess.Popen[str]] = []

    def start(dev: Dev) -> "subprocess.Popen[str]":
        peers = ",".join(node["listen"] for node in dev.first["nodes"])
        words = ["server", "--name", "n4", "--data-dir", str(tmp_path / "n4"), "--listen", "127.0.0.1:0", "--join", peers]
        started.append(subprocess.Popen([*COORD, *words], stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


def members(dev: Dev) -> dict[str, dict[str, Any]]:
    found = coord("--url", dev.url, "-o", "json", "members", "ls")
    return {row["name"]: row for row in json.loads(found.stdout)["members"]} if found.stdout else {}


def voters(dev: Dev) -> set[str]:
    return {name for name, row in members(dev).items() if row["part"] == "voter"}


def test_a_started_node_is_listed_and_a_removed_one_ends_with_its_own_exit_code(
    start_dev: StartDev, fourth: Callable[[Dev], "subprocess.Popen[str]"]
) -> None:
    """The whole life of a node: joined by being started, removed by its name, and its process says why it ended."""
    dev = start_dev()
    process = fourth(dev)
    until(lambda: voters(dev) == {"n1", "n2", "n3", "n4"}, seconds=30, what="four voters")
    row = members(dev)["n4"]
    assert (row["role"], row["lag"]) == ("follower", 0)
    assert row["id"] > 3
    assert dev.status()["tolerates"] == 1
    removed = coord("--url", dev.url, "members", "remove", "n4")
    assert (removed.returncode, removed.stderr) == (0, "n4 is no member any more; left: n1, n2, n3\n")
    _, said = process.communicate(timeout=20)
    assert process.returncode == Exit.FAILED
    assert "was removed from cluster" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_what_could_do_harm_is_refused_with_exit_code_7(start_dev: StartDev) -> None:
    """One node is down: without a second one nothing would work."""
    dev = start_dev()
    leader = dev.status()["leader"]
    dead, alive = (name for name in dev.pids if name != leader)
    dev.kill_node(dead)
    until(lambda: members(dev).get(dead, {}).get("role") == "unreachable", what="the death of a node")

    def refusal() -> "subprocess.CompletedProcess[str] | None":
        """A node counts as heard for an election timeout or two."""
        found = coord("--url", dev.url, "members", "remove", alive)
        return found if found.returncode else None

    refused = refusal()
    assert refused is not None
    assert refused.returncode == Exit.UNSAFE
    assert f"{dead} not heard lately" in refused.stderr
    assert "force" in refused.stderr
    assert coord("--url", dev.url, "members", "remove", dead).returncode == Exit.OK
    assert voters(dev) == {leader, alive}


def test_leadership_is_handed_over_before_a_machine_is_taken_down(start_dev: StartDev) -> None:
    """To a node that is named, or to the best one."""
    dev = start_dev()
    leader = until(lambda: dev.status()["leader"], what="a leader")
    other = next(name for name in dev.pids if name != leader)
    handed = coord("--url", dev.url, "members", "transfer-leader", other)
    assert (handed.returncode, handed.stderr) == (0, f"{other} leads\n")
    assert until(lambda: dev.status()["leader"], what="a leader") == other
    assert coord("--url", dev.url, "members", "transfer-leader").returncode == Exit.OK
    assert until(lambda: dev.status()["leader"], what="a leader") != other


def test_a_name_that_is_no_member_is_exit_code_5(cluster: Dev) -> None:
    """With the names that there are."""
    found = coord("--url", cluster.url, "members", "remove", "n9")
    assert (found.returncode, found.stderr) == (
        Exit.NOT_FOUND,
        "coord: there is no node 'n9' in this cluster; there are n1, n2, n3\n",
    )


def test_members_as_table_and_plain_lines(cluster: Dev) -> None:
    """For people and for cut(1)."""
    table = coord("--url", cluster.url, "members", "ls").stdout
    assert table.splitlines()[0].split() == ["NAME", "ID", "PART", "ROLE", "LAG", "ADDRESS", "PEER", "ADDRESS"]
    plain = coord("--url", cluster.url, "members", "ls", "-o", "plain").stdout
    assert [line.split("\t")[:3] for line in plain.splitlines()] == [[f"n{number}", str(number), "voter"] for number in (1, 2, 3)]
