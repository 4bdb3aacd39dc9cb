"""What an earlier release wrote, every later one reads: a node is not taken apart for an upgrade."""

import pytest

from coord_core.machine import Machine, stream
from coord_core.machine.invariants import check
from coord_core.machine.rolling import UNKNOWN
from tests.machine.frozen import path_of, story


@pytest.mark.parametrize("stream_format", range(1, stream.FORMAT + 1))
def test_a_snapshot_of_every_format_that_was_ever_written_is_read(stream_format: int) -> None:
    """All of it: sessions, answers, queues in their order, tokens, timers, values."""
    machine = Machine.restore([path_of(stream_format).read_bytes()])
    check(machine)
    assert machine.digest() == story().machine.digest()


def test_a_snapshot_without_a_rolling_hash_leaves_it_unknown() -> None:
    """Such a node must not stop because its number is another than that of nodes that counted from the beginning."""
    machine = Machine.restore([path_of(1).read_bytes()])
    assert machine.rolling_hash == UNKNOWN
    log = story()
    log.machine = machine
    log.wait(5)
    assert machine.rolling_hash == UNKNOWN
