"""A leader that is stopped for twice the TTL, and wakes up believing that nothing has happened."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coord_core.client.clocks import clock
from tests.cli.running import Dev, until

TTL_S = 2.5
HOLDERS = 3


@pytest.fixture
def dev() -> Iterator[Dev]:
    cluster = Dev()
    yield cluster
    cluster.stop()


def grants(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_no_two_ever_believe_at_once_and_nobody_who_kept_alive_is_expired(dev: Dev, tmp_path: Path):
    """The old leader may grant, renew and expire nothing of what it finds in its sockets when it wakes up."""
    log, stop = tmp_path / "log", tmp_path / "stop"
    command = [
        sys.executable,
        str(Path(__file__).with_name("holder.py")),
        f"{dev.url}?ttl={int(TTL_S * 1000)}ms",
        str(log),
        str(stop),
    ]
    holders = [subprocess.Popen(command) for _ in range(HOLDERS)]
    try:
        until(lambda: len({line["pid"] for line in grants(log)}) == HOLDERS, what="every holder having had the lock")
        leader = dev.leader()
        os.kill(leader, signal.SIGSTOP)
        stopped_at = clock()
        until(lambda: clock() > stopped_at + 2 * TTL_S, what="twice the TTL")
        during = [line for line in grants(log) if line.get("began", 0) > stopped_at]
        os.kill(leader, signal.SIGCONT)
        woken_at = clock()
        until(lambda: sum(line.get("began", 0) > woken_at for line in grants(log)) > 100, what="100 more grants")
    finally:
        stop.touch()
        codes = [holder.wait(20) for holder in holders]
    assert codes == [0] * HOLDERS
    assert during, "nobody got the lock while the leader stood still"

    lines = grants(log)
    held = sorted((line for line in lines if "token" in line), key=lambda line: line["began"])
    for earlier, later in itertools.pairwise(held):
        assert earlier["until"] <= later["began"], (earlier, later)
        assert earlier["token"] < later["token"], (earlier, later)
    sessions = {line["pid"]: {each["session"] for each in held if each["pid"] == line["pid"]} for line in held}
    assert all(len(ids) == 1 for ids in sessions.values()), sessions
    assert [line for line in lines if "error" in line and line["error"] not in ("Unavailable", "OutcomeUnknown")] == []
