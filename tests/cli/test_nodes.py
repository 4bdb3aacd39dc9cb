"""Which nodes `coord dev` runs, and on which ports."""

import socket
from pathlib import Path

import pytest

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.nodes import plan_nodes, url_of


def test_new_directory_gets_nodes_on_free_ports_that_differ(tmp_path: Path) -> None:
    plans = plan_nodes(tmp_path, None, None)
    assert [plan.name for plan in plans] == ["n1", "n2", "n3"]
    assert len({plan.listen for plan in plans}) == 3


def test_same_directory_gives_the_same_url(tmp_path: Path) -> None:
    """The members of a cluster know each other by address."""
    first = plan_nodes(tmp_path, 2, None)
    assert url_of(plan_nodes(tmp_path, None, None)) == url_of(first)
    assert url_of(plan_nodes(tmp_path, 2, None)) == url_of(first)


def test_another_number_of_nodes_or_port_than_the_directory_holds_is_refused(tmp_path: Path) -> None:
    plan_nodes(tmp_path, 2, None)
    for count, port in ((3, None), (None, 1)):
        with pytest.raises(CommandFailed) as refused:
            plan_nodes(tmp_path, count, port)
        assert refused.value.code == Exit.CONFLICT


def test_taken_port_is_refused_by_its_number(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandFailed, match=f"port {port} is taken") as refused:
            plan_nodes(tmp_path, 1, port)
    assert refused.value.code == Exit.CONFLICT
    assert not (tmp_path / "dev.json").exists()


def test_damaged_memory_of_ports_is_refused_not_replaced(tmp_path: Path) -> None:
    """New ports would be a new cluster to the old data."""
    (tmp_path / "dev.json").write_text("{}")
    with pytest.raises(CommandFailed, match=r"dev\.json"):
        plan_nodes(tmp_path, None, None)
