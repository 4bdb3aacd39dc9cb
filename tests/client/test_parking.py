"""What both clients promise of parking lots, on a real node."""

import asyncio
from typing import Any

import pytest

from coord_core import CoordError, InvalidRequest, LimitExceeded, NotHolder, WrongType
from tests.client.shells import ASYNC_ONLY, Shell
from tests.client.test_topics import close, next_of

Addresses = list[str]

pytestmark = pytest.mark.parametrize("addresses", ["real"], indirect=True)

LOCK = "/locks/k"


class Scene:
    """A client that holds the lock, and one that parks and consumes."""

    def __init__(self, shell: Shell, addresses: Addresses) -> None:
        self.shell = shell
        self.client = shell.connect(addresses)
        self.lock = self.client.lock(LOCK)
        self.lot = shell.connect(addresses).parking("/lot", label="worker")

    async def hold(self) -> None:
        assert await self.shell.go(self.lock.acquire, 5)

    async def release(self) -> None:
        await self.shell.go(self.lock.release)

    async def park(self, name: str, **more: Any) -> Any:
        return await self.shell.go(self.lot.park, "k", name, f"message {name}".encode(), **{"lock": LOCK, **more})

    async def run(self) -> None:
        """Take the lock and give it back, as who was called does."""
        await self.hold()
        await self.release()


@pytest.fixture
def scene(shell: Shell, addresses: Addresses) -> Scene:
    return Scene(shell, addresses)


async def test_pieces_are_handed_out_one_after_the_other_when_the_lock_is_free(scene: Scene) -> None:
    """In the order in which they were parked; each when the one before was committed and has run."""
    shell, lot = scene.shell, scene.lot
    await scene.hold()
    for number in range(3):
        assert await scene.park(str(number)) == (number, False, True)
    assert [piece.id for piece in await shell.go(lot.waiting, "k")] == ["0", "1", "2"]
    pieces = lot.consume()
    await scene.release()
    for number in range(3):
        piece = await next_of(shell, pieces)
        assert (piece.offset, piece.key, piece.id, piece.message) == (number, "k", str(number), b"message %d" % number)
        assert not piece.expired
        await scene.run()
    await shell.go(lot.commit, 3)
    await close(shell, pieces)
    assert await shell.go(lot.info) is None


async def test_what_is_parked_when_the_lock_is_free_is_called_at_once(scene: Scene) -> None:
    """Whoever lost the race against a release waits for nobody."""
    assert await scene.park("one") == (0, True, True)
    pieces = scene.lot.consume()
    assert (await next_of(scene.shell, pieces)).id == "one"


async def test_parking_twice_tells_the_place_and_doubles_nothing(scene: Scene) -> None:
    """The message stays, unless it is to be replaced."""
    shell, lot = scene.shell, scene.lot
    await scene.hold()
    await scene.park("one")
    await scene.park("two")
    assert await scene.park("two") == (1, False, False)
    again = await shell.go(lot.park, "k", "one", b"other", lock=LOCK, replace=True)
    assert again == (0, False, False)
    assert [piece.id for piece in await shell.go(lot.waiting, "k")] == ["one", "two"]
    assert [piece.id for piece in await shell.go(lot.waiting, "k", 1)] == ["one"]
    await scene.release()
    assert (await next_of(shell, lot.consume())).message == b"other"


async def test_no_more_wait_than_the_caller_allows(scene: Scene) -> None:
    """None, as from a lock that is busy."""
    await scene.hold()
    assert await scene.park("one", max_waiting=1)
    assert await scene.park("two", max_waiting=1) is None
    assert await scene.park("one", max_waiting=1)


async def test_unparked_is_not_handed_out(scene: Scene) -> None:
    """Such as a task that was revoked."""
    shell, lot = scene.shell, scene.lot
    await scene.hold()
    for name in ("one", "two"):
        await scene.park(name)
    assert await shell.go(lot.unpark, "k", "one") == "waiting"
    assert await shell.go(lot.unpark, "k", "one") == ""
    await scene.release()
    assert (await next_of(shell, lot.consume())).id == "two"
    assert await shell.go(lot.unpark, "k", "two") == "called"


async def test_what_has_waited_long_enough_is_handed_out_as_expired(scene: Scene) -> None:
    """Though the lock is taken: somebody must be told."""
    await scene.hold()
    await scene.park("one", timeout=0.2)
    (waiting,) = await scene.shell.go(scene.lot.waiting, "k")
    assert 0 < waiting.expires_in <= 0.2
    piece = await next_of(scene.shell, scene.lot.consume())
    assert (piece.id, piece.expired) == ("one", True)
    assert piece.waited >= 0.2


async def test_a_piece_that_never_comes_is_waited_for_no_longer_than_its_grace(scene: Scene) -> None:
    """Once it was committed."""
    await scene.park("one", grace=0.2)
    await scene.park("two")
    pieces = scene.lot.consume()
    assert (await next_of(scene.shell, pieces)).id == "one"
    assert (await next_of(scene.shell, pieces)).id == "two"


async def test_a_piece_that_was_overtaken_gets_its_old_place(scene: Scene) -> None:
    """Somebody else was faster to the lock; it is parked again, also where no more may wait, and is the first to be called."""
    shell, lot = scene.shell, scene.lot
    for name in ("one", "two", "three"):
        await scene.park(name)
    pieces = lot.consume()
    assert (await next_of(shell, pieces)).id == "one"
    await scene.hold()
    assert await scene.park("one", max_waiting=2) == (0, False, True)
    assert [piece.id for piece in await shell.go(lot.waiting, "k")] == ["one", "two", "three"]
    await scene.release()
    again = await next_of(shell, pieces)
    assert (again.id, again.offset) == ("one", 1)
    await scene.run()
    assert (await next_of(shell, pieces)).id == "two"


async def test_as_many_are_called_as_a_semaphore_has_permits(scene: Scene) -> None:
    """Two of three have room."""
    shell, lot = scene.shell, scene.lot
    holder = scene.client.semaphore("/s", 2, permits=2)
    await shell.go(holder.acquire)
    for number in range(3):
        await scene.park(str(number), lock="/s")
    await shell.go(holder.set_limit, 2)
    await shell.go(holder.release)
    status = await shell.go(lot.info)
    (key,) = status.keys
    assert (key.key, key.lock, key.waiting, key.called) == ("k", "/test/s", 1, 2)
    assert (status.pieces, status.uncommitted, status.keys_total, status.consumer) == (3, 2, 1, None)


async def test_what_a_consumer_has_not_worked_off_goes_to_the_next(shell: Shell, addresses: Addresses, scene: Scene) -> None:
    """Under the same id, in order; what was committed does not come again."""
    lot, lots = scene.lot, [shell.connect(addresses).parking("/lot", label=name) for name in ("first", "second")]
    for name in ("one", "two", "three"):
        await shell.go(lot.park, name, name, b"", lock=f"/locks/{name}")
    first, second = (each.consume() for each in lots)
    assert [(await next_of(shell, first)).id for _ in range(2)] == ["one", "two"]
    assert (await shell.go(lot.info)).consumer.label == "first"
    pending = shell.start(second.__anext__ if hasattr(second, "__anext__") else second.__next__)
    await close(shell, first)
    assert (await asyncio.wait_for(pending, 10)).id == "two"
    assert (await next_of(shell, second)).id == "three"


async def test_who_commits_himself_says_so(scene: Scene) -> None:
    """Only the consumer may, and not beyond the end."""
    shell, lot = scene.shell, scene.lot
    await scene.park("one")
    with pytest.raises(NotHolder):
        await shell.go(lot.commit, 1)
    claim = await shell.go(lot.claim)
    assert claim.token > 0
    with pytest.raises(InvalidRequest):
        await shell.go(lot.commit, 2)
    other = scene.client.parking("/lot")
    assert await shell.go(other.claim) is None
    assert await shell.go(lot.commit, 1) == 1
    assert (await shell.go(other.claim, takeover=True)).token > claim.token
    with pytest.raises(NotHolder):
        await shell.go(lot.commit, 1)
    await shell.go(other.release)


async def test_what_cannot_be_parked_is_refused_before_it_is_sent(scene: Scene) -> None:
    """Clearer and earlier than by the cluster; the rest by the cluster."""
    shell, lot = scene.shell, scene.lot
    with pytest.raises(LimitExceeded):
        await shell.go(lot.park, "k", "one", bytes(256 * 1024 + 1), lock=LOCK)
    for key, name, more in (
        ("", "one", {}),
        ("k" * 513, "one", {}),
        ("k", "", {}),
        ("k", None, {}),
        ("k", "one", {"lock": "no path"}),
        ("k", "one", {"timeout": -1}),
        ("k", "one", {"grace": 0}),
        ("k", "one", {"max_waiting": 0}),
        ("k", "one", {"permits": 0}),
    ):
        with pytest.raises(InvalidRequest):
            await shell.go(lot.park, key, name, b"", **{"lock": LOCK, **more})
    largest = bytes(256 * 1024)
    await shell.go(lot.park, "k", "one", largest, lock=LOCK)
    assert (await next_of(shell, lot.consume())).message == largest
    with pytest.raises(WrongType):
        await shell.go(scene.client.parking(LOCK + "/value").park, "k", "one", b"", lock="/lot")


async def test_a_lot_is_made_and_found_by_its_class(shell: Shell, addresses: Addresses, scene: Scene) -> None:
    """As every other resource."""
    kind = type(scene.lot)
    lot = await shell.go(scene.client.create, "/lot", kind)
    await shell.go(lot.park, "k", "one", b"", lock=LOCK)
    assert isinstance(await shell.go(scene.client.get, "/lot", kind), kind)
    assert repr(lot).endswith("/lot>")


@ASYNC_ONLY
async def test_a_parking_that_is_cancelled_leaves_no_call_behind(scene: Scene) -> None:
    """It may have been parked or not: parking again tells."""
    await scene.hold()
    task = asyncio.ensure_future(scene.lot.park("k", "one", b"", lock=LOCK))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await scene.park("one")).position == 0


@pytest.mark.parametrize("commit", [True, False])
async def test_a_consumer_that_lost_its_session_is_handed_what_it_has_not_committed(
    shell: Shell, addresses: Addresses, scene: Scene, commit: bool
) -> None:
    """It claims the lot anew, as any other would: nobody else may be there to do it."""
    client = shell.connect(addresses)
    lot = client.parking("/lot")
    for name in ("one", "two", "three"):
        await shell.go(scene.lot.park, name, name, b"", lock=f"/locks/{name}")
    pieces = lot.consume(commit=commit)
    assert [(await next_of(shell, pieces)).id for _ in range(2)] == ["one", "two"]
    await shell.go(scene.client.end_session, client.session.session_id)
    with pytest.raises(CoordError):  # of the session that it does not know to be lost, or of one that is not the consumer
        await shell.go(lot.commit, 2)
    assert [(await next_of(shell, pieces)).id for _ in range(3)] == ["one", "two", "three"]
    assert await shell.go(lot.commit, 3) == 3
