"""The contract of `coord_core.storage.api`, held over every implementation."""

from collections.abc import Callable
from itertools import islice
from threading import Thread

import pytest

from coord_core.errors import StorageFailed
from coord_core.raft.messages import Entry, EntryKind, HardState
from coord_core.storage.api import Batch
from coord_core.storage.memory import MemoryStorage
from coord_core.types import LogIndex, NodeId, Term
from tests.storage.building import BOOTSTRAP, FOUNDING_STATE, content, entries, random_batches, state
from tests.storage.places import Place


def test_a_fresh_storage_holds_no_node(place: Place) -> None:
    """None tells the server to form or join; anything else would make up a node."""
    assert place.storage.load() is None
    assert place.restart().load() is None


def test_forming_is_remembered_with_the_founding_term_and_commit(formed_place: Place) -> None:
    """A founder starts from the founding snapshot: its hard state cannot be behind that snapshot's term and index."""
    for _ in range(2):
        restored = formed_place.storage.load()
        assert restored is not None
        assert restored.bootstrap == BOOTSTRAP
        assert restored.hard_state == FOUNDING_STATE
        assert list(restored.entries) == []
        assert formed_place.storage.last_index() == 1
        formed_place.restart()


def test_a_node_is_formed_once(formed_place: Place) -> None:
    """A second founding would give one directory two identities; the refusal does not harm the node that is there."""
    with pytest.raises(StorageFailed, match="formed"):
        formed_place.storage.form(BOOTSTRAP)
    formed_place.storage.write(Batch(entries(2, 1)))
    with pytest.raises(StorageFailed, match="formed"):
        formed_place.restart().form(BOOTSTRAP)
    assert content(formed_place.storage) == (FOUNDING_STATE, entries(2, 1))


def test_what_was_written_is_there_after_a_restart(formed_place: Place) -> None:
    """Rule 2: every write that returned is in what `load` finds."""
    storage = formed_place.storage
    storage.write(Batch(entries(2, 3), state(2, voted_for=3, commit=1)))
    storage.write(Batch(entries(5, 1)))
    storage.write(Batch((), state(2, voted_for=3, commit=4)))
    assert storage.last_index() == 5
    reopened = formed_place.restart()
    assert content(reopened) == (state(2, voted_for=3, commit=4), entries(2, 4))
    assert reopened.last_index() == 5


def test_an_entry_keeps_every_field(formed_place: Place) -> None:
    """Kind and bytes are opaque here and must come back as they went in, empty bytes and large numbers too."""
    large = 2**53 - 1
    written = [
        Entry(LogIndex(2), Term(1), int(EntryKind.COMMAND), b""),
        Entry(LogIndex(3), Term(large), int(EntryKind.CONFIGURATION), bytes(range(256))),
    ]
    hard_state = HardState(Term(large), NodeId(large), LogIndex(large))
    formed_place.storage.write(Batch(written, hard_state))
    assert content(formed_place.restart()) == (hard_state, written)


@pytest.mark.parametrize("first", range(2, 15), ids=lambda first: f"from {first}")
def test_entries_at_or_below_the_last_index_replace_the_rest_of_the_log(formed_place: Place, first: int) -> None:
    """Raft 5.3: a follower's conflicting entries go, wherever the cut falls: inside a batch, between two, before all."""
    for start, count in ((2, 4), (6, 1), (7, 5), (12, 2)):
        formed_place.storage.write(Batch(entries(start, count)))
    formed_place.storage.write(Batch(entries(first, 2, term=2)))
    expected = entries(2, first - 2) + entries(first, 2, term=2)
    assert content(formed_place.storage) == (FOUNDING_STATE, expected)
    formed_place.storage.write(Batch(entries(first + 2, 1, term=2)))
    assert content(formed_place.restart()) == (FOUNDING_STATE, expected + entries(first + 2, 1, term=2))


@pytest.mark.parametrize("seed", range(8))
def test_any_row_of_writes_leaves_what_it_says(formed_place: Place, seed: int) -> None:
    """Appends, replacements and hard states in any order, with restarts between them."""
    for step, (batch, expected) in enumerate(islice(random_batches(seed), 60)):
        formed_place.storage.write(batch)
        if step % 15 == 14:
            assert content(formed_place.restart()) == expected, f"seed {seed}, step {step}"
    assert content(formed_place.storage) == expected, f"seed {seed}"
    assert formed_place.storage.last_index() == 1 + len(expected[1])


def test_an_empty_batch_changes_nothing(formed_place: Place) -> None:
    """The node may have nothing to persist; that is not a transaction."""
    formed_place.storage.write(Batch())
    assert content(formed_place.restart()) == (FOUNDING_STATE, [])


def test_a_large_batch_is_one_write(formed_place: Place) -> None:
    """More entries and more bytes than a row of the log may have, cut through afterwards."""
    many = entries(2, 9000) + entries(9002, 5, size=700_000) + entries(9007, 1, size=3_000_000)
    formed_place.storage.write(Batch(many))
    assert content(formed_place.restart()) == (FOUNDING_STATE, many)
    formed_place.storage.write(Batch(entries(5000, 1, term=2)))
    assert content(formed_place.restart()) == (FOUNDING_STATE, many[:4998] + entries(5000, 1, term=2))


MISFITS = {
    "gap": entries(5, 1),
    "below the snapshot": entries(1, 3),
    "not contiguous": [*entries(4, 1), *entries(6, 1)],
}


@pytest.mark.parametrize("name", MISFITS)
def test_entries_that_do_not_fit_poison_the_storage(formed_place: Place, name: str) -> None:
    """Rule 4: consensus never asks for them, so its state cannot be trusted any further; nothing of the batch is stored."""
    formed_place.storage.write(Batch(entries(2, 2)))
    with pytest.raises(StorageFailed) as first:
        formed_place.storage.write(Batch(MISFITS[name], state(9)))
    for call in (formed_place.storage.load, formed_place.storage.last_index, lambda: formed_place.storage.write(Batch())):
        with pytest.raises(StorageFailed) as again:
            call()
        assert again.value is first.value
    assert content(formed_place.restart()) == (FOUNDING_STATE, entries(2, 2))


def test_writing_before_the_node_is_formed_is_refused(place: Place) -> None:
    """There is no log yet that entries could follow."""
    with pytest.raises(StorageFailed):
        place.storage.last_index()
    with pytest.raises(StorageFailed):
        place.storage.write(Batch(entries(2, 1)))


def test_a_closed_storage_refuses_everything(formed_place: Place) -> None:
    """A late call of a stopped node must not write; closing twice is harmless."""
    formed_place.storage.close()
    formed_place.storage.close()
    calls: tuple[Callable[[], object], ...] = (
        formed_place.storage.load,
        formed_place.storage.last_index,
        lambda: formed_place.storage.form(BOOTSTRAP),
        lambda: formed_place.storage.write(Batch(entries(2, 1))),
    )
    for call in calls:
        with pytest.raises(StorageFailed, match="closed"):
            call()


def test_another_thread_than_the_one_that_opened_it_may_write(formed_place: Place) -> None:
    """Rule 3: the node opens its storage, the writer thread uses it."""
    writer = Thread(target=formed_place.storage.write, args=(Batch(entries(2, 1)),))
    writer.start()
    writer.join()
    assert content(formed_place.storage) == (FOUNDING_STATE, entries(2, 1))


def test_what_was_loaded_does_not_change_with_later_writes(formed_place: Place) -> None:
    """The node keeps working on the list it was given."""
    formed_place.storage.write(Batch(entries(2, 2)))
    restored = formed_place.storage.load()
    formed_place.storage.write(Batch(entries(2, 1, term=2)))
    assert restored is not None
    assert list(restored.entries) == entries(2, 2)


def test_a_clone_of_a_memory_storage_goes_its_own_way() -> None:
    """The simulator keeps clones as the disks of crashed nodes."""
    storage = MemoryStorage()
    storage.form(BOOTSTRAP)
    storage.write(Batch(entries(2, 3)))
    clone = storage.clone()
    storage.write(Batch(entries(3, 1, term=2), state(2)))
    clone.write(Batch(entries(5, 1)))
    assert content(storage) == (state(2), entries(2, 1) + entries(3, 1, term=2))
    assert content(clone) == (FOUNDING_STATE, entries(2, 4))
