"""The simulated world itself: time, pipes, disks, processes.  What it may do, and what it must never do by itself."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from coord_core.errors import StorageCorrupt, StorageFailed
from coord_core.raft.messages import Configuration, Entry, HardState, SnapshotMetadata
from coord_core.storage.api import Batch, Bootstrap, Identity
from coord_core.storage.snapshots import Staging
from coord_core.testing.disk import DiskSpeed, SimulatedDisk
from coord_core.testing.network import Network, Pipe, Weather
from coord_core.testing.process import Process
from coord_core.testing.simulator import MILLISECOND, SECOND, Clock, Simulator, Violation
from coord_core.types import LogIndex, NodeId, Term

# --- time -----------------------------------------------------------------------------------------------------------------------


def test_events_happen_in_order_of_time_and_then_of_scheduling() -> None:
    simulator = Simulator(1)
    order: list[Any] = []
    for delay, name in ((20, "c"), (10, "a"), (10, "b")):
        simulator.after(delay, order.append, name)
    assert not simulator.run_until(SECOND)
    assert order == ["a", "b", "c"]
    assert simulator.now_us == SECOND


def test_run_stops_where_its_condition_holds() -> None:
    simulator = Simulator(1)
    order: list[Any] = []
    for delay in (10, 20, 30):
        simulator.after(delay, order.append, delay)
    assert simulator.run_until(SECOND, lambda: 20 in order)
    assert (order, simulator.now_us) == ([10, 20], 20)


def test_cancelled_timer_does_nothing() -> None:
    simulator = Simulator(1)
    order: list[Any] = []
    simulator.after(10, order.append, 1).cancel()
    simulator.run_until(SECOND)
    assert order == []


def test_streams_of_a_seed_are_independent_and_repeatable() -> None:
    assert Simulator(1).stream("a").random() == Simulator(1).stream("a").random()
    assert len({Simulator(seed).stream(name).random() for seed in (1, 2) for name in ("a", "b")}) == 4


def test_drifting_clock_runs_fast_and_says_how_long_its_time_takes() -> None:
    simulator = Simulator(1)
    clock = Clock(simulator, origin_us=7 * SECOND, drift=0.01)
    simulator.run_until(100 * SECOND)
    assert clock.now_us() == 108 * SECOND
    assert clock.real_us(101 * SECOND) == pytest.approx(100 * SECOND, abs=2)


# --- pipes ----------------------------------------------------------------------------------------------------------------------


class Listener:
    """A host that notes what arrives."""

    up = True

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.heard: list[Any] = []

    def arrive(self, action: Callable[..., None], *arguments: Any) -> None:
        action(*arguments)


def pipe(weather: Weather, *, reliable: bool) -> tuple[Simulator, Network, Listener, Pipe]:
    simulator = Simulator(3)
    network = Network(simulator, weather)
    listener = Listener("b")
    return simulator, network, listener, Pipe(network, "a", listener, reliable=reliable)


def test_pipe_keeps_the_order_of_what_is_sent() -> None:
    simulator, _, listener, line = pipe(Weather(straggler_chance=0.5), reliable=False)
    for number in range(50):
        line.send(listener.heard.append, number)
    simulator.run_until(10 * SECOND)
    assert listener.heard == list(range(50))


def test_unreliable_pipe_drops_repeats_and_overtakes_where_the_weather_says_so() -> None:
    simulator, _, listener, line = pipe(Weather(drop_chance=0.2, repeat_chance=0.2, overtake_chance=0.2), reliable=False)
    for number in range(200):
        line.send(listener.heard.append, number)
    simulator.run_until(10 * SECOND)
    assert len(set(listener.heard)) < 200
    assert len(listener.heard) > len(set(listener.heard))
    assert listener.heard != sorted(listener.heard)


def test_clients_pipe_loses_nothing_in_any_weather() -> None:
    simulator, _, listener, line = pipe(Weather(drop_chance=0.5, repeat_chance=0.5, overtake_chance=0.5), reliable=True)
    for number in range(50):
        line.send(listener.heard.append, number)
    simulator.run_until(10 * SECOND)
    assert listener.heard == list(range(50))


@pytest.mark.parametrize(("keep", "reliable", "arrives"), [(True, False, True), (False, False, False), (False, True, True)])
def test_partition_holds_up_or_loses_what_is_sent(keep: bool, reliable: bool, arrives: bool) -> None:
    """Nothing arrives before the heal; after it, in order, what was kept."""
    simulator, network, listener, line = pipe(Weather(), reliable=reliable)
    network.block("a", "b", keep=keep)
    for number in range(5):
        line.send(listener.heard.append, number)
    simulator.run_until(SECOND)
    assert listener.heard == []
    network.heal("a", "b")
    line.send(listener.heard.append, 5)
    simulator.run_until(2 * SECOND)
    assert listener.heard == (list(range(6)) if arrives else [5])


def test_partition_of_the_other_direction_changes_nothing() -> None:
    simulator, network, listener, line = pipe(Weather(), reliable=False)
    network.block("b", "a", keep=False)
    line.send(listener.heard.append, 1)
    simulator.run_until(SECOND)
    assert listener.heard == [1]


def test_cut_loses_what_is_on_its_way() -> None:
    simulator, _, listener, line = pipe(Weather(), reliable=True)
    line.send(listener.heard.append, 1)
    line.cut()
    line.send(listener.heard.append, 2)
    simulator.run_until(SECOND)
    assert listener.heard == [2]


# --- disks ----------------------------------------------------------------------------------------------------------------------


def disk(seed: int = 1) -> SimulatedDisk:
    founding = SnapshotMetadata(LogIndex(1), Term(1), Configuration((NodeId(1),)))
    bootstrap = Bootstrap(Identity("c" * 32, NodeId(1), "n1", "i"), (), founding)
    return SimulatedDisk(bootstrap, random.Random(seed), DiskSpeed())


def entry(index: int, term: int) -> Entry:
    return Entry(LogIndex(index), Term(term), 0, b"")


def test_disk_has_a_batch_wholly_once_it_is_complete() -> None:
    device = disk()
    device.begin(Batch([entry(2, 3)], HardState(Term(3), NodeId(1), LogIndex(1))))
    assert device.last_index() == 1
    device.complete()
    restored = device.restored()
    assert (list(restored.entries), restored.hard_state.term) == ([entry(2, 3)], 3)


def test_crash_keeps_the_batch_on_its_way_or_loses_it_whole() -> None:
    """Both happen, and nothing between them."""
    outcomes = set()
    for seed in range(20):
        device = disk(seed)
        device.begin(Batch([entry(2, 3), entry(3, 3)], HardState(Term(3))))
        landed = device.crash()
        outcomes.add((landed, device.last_index(), device.hard_state.term))
    assert outcomes == {(True, 3, 3), (False, 1, 1)}


def test_entries_replace_the_suffix_that_they_overlap() -> None:
    device = disk()
    device.write(Batch([entry(2, 2), entry(3, 2), entry(4, 2)]))
    device.write(Batch([entry(3, 5)]))
    assert [device.term_at(index) for index in range(1, 5)] == [1, 2, 5, None]


def test_failed_write_is_there_or_not_and_the_disk_takes_nothing_more() -> None:
    """EIO on commit, 4. of the storage's contract: the next life finds one of the two, and works."""
    outcomes = set()
    for seed in range(20):
        device = disk(seed)
        device.failing = True
        device.begin(Batch([entry(2, 3)]))
        with pytest.raises(StorageFailed, match="input/output") as failed:
            device.complete()
        device.begin(Batch([entry(3, 3)]))
        with pytest.raises(StorageFailed) as again:
            device.complete()
        assert again.value is failed.value
        assert not failed.value.details["full"]
        outcomes.add(len(device.restored().entries))
        device.begin(Batch([entry(2, 4)]))
        device.complete()
        assert device.term_at(2) == 4
    assert outcomes == {0, 1}


def test_write_for_which_there_is_no_room_is_not_there() -> None:
    """Neither when it fails nor when power is lost before it does; a restart alone makes no room."""
    device = disk()
    device.room = 150
    device.begin(Batch([entry(2, 3)]))
    device.complete()
    for seed in range(8):
        device._rng = random.Random(seed)
        device.begin(Batch([entry(3, 3)]))
        assert not device.crash()
    device.begin(Batch([entry(3, 3)]))
    with pytest.raises(StorageFailed) as failed:
        device.complete()
    assert failed.value.details["full"]
    assert device.restored().entries == [entry(2, 3)]
    device.mend(DiskSpeed())
    device.begin(Batch([entry(3, 3)]))
    device.complete()
    assert device.last_index() == 3


def test_damage_is_found_when_a_node_starts_or_reads() -> None:
    device = disk()
    device.damage = "a bit has flipped"
    with pytest.raises(StorageCorrupt, match="bit"):
        device.restored()
    with pytest.raises(StorageCorrupt, match="bit"):
        device.read_chunk(Staging(1), 0)


def test_disk_refuses_what_no_storage_would_take() -> None:
    """A gap in the log, and two writes at once, are the node's own faults."""
    device = disk()
    with pytest.raises(Violation, match="gap"):
        device.write(Batch([entry(4, 2)]))
    device.begin(Batch([entry(2, 2)]))
    with pytest.raises(Violation, match="two writes"):
        device.begin(Batch([entry(3, 2)]))


# --- processes ------------------------------------------------------------------------------------------------------------------


def process() -> tuple[Simulator, Process, list[Any]]:
    simulator = Simulator(5)
    subject = Process(simulator, "p", drift=0.0)
    subject.start()
    return simulator, subject, []


def test_stopped_process_takes_what_waited_in_order_when_it_is_resumed() -> None:
    """Arrivals and timers alike, and what arrives while it catches up goes behind."""
    simulator, subject, heard = process()
    subject.later(10 * MILLISECOND, heard.append, "timer")
    subject.stop()
    simulator.run_until(50 * MILLISECOND)
    for number in range(20):
        subject.arrive(heard.append, number)
    simulator.run_until(SECOND)
    assert heard == []
    assert subject.stopped_us() == SECOND
    subject.resume()
    subject.arrive(heard.append, "last")
    simulator.run_until(2 * SECOND)
    assert heard == ["timer", *range(20), "last"]
    assert subject.stopped_us() == SECOND


def test_nothing_of_one_life_happens_in_the_next() -> None:
    simulator, subject, heard = process()
    subject.later(10 * MILLISECOND, heard.append, "timer of the first life")
    subject.kill()
    subject.arrive(heard.append, "to the dead")
    subject.start()
    simulator.run_until(SECOND)
    assert heard == []
    assert subject.life == 2


def test_each_life_has_a_clock_of_its_own_origin() -> None:
    """A reboot: no monotonic time means anything to the next life."""
    _, subject, _ = process()
    first = subject.clock.now_us()
    subject.kill()
    subject.start()
    assert abs(subject.clock.now_us() - first) > SECOND
