"""Singleton tasks on one worker: what Celery does with tasks, and what becomes of their locks."""

import itertools
import os
import signal
import time

import pytest
from celery import chain, chord, states
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from coord_celery import CoordUnavailable, DuplicateTask, SingletonConflict

from tests.coord_celery.conftest import assert_no_overlap, close_shop, open_shop
from tests.coord_celery.waiting import until

pytestmark = pytest.mark.xdist_group("celery")

_names = itertools.count()


@pytest.fixture(scope="module")
def shop(tmp_path_factory, redis_socket, cluster):
    """One worker with three processes for all tests here."""
    shop = open_shop(tmp_path_factory.mktemp("shop"), redis_socket, cluster)
    shop.start_worker("-c", "3")
    yield shop
    close_shop(shop)


@pytest.fixture
def name():
    """A key that no other test uses."""
    return f"k{next(_names)}"


def test_task_runs_under_a_lock_in_its_own_name(shop, name):
    seen = shop.task("seen_from_inside").delay(name)
    assert seen.get(timeout=20)["label"] == seen.id
    assert seen.get()["key"] == f'name="{name}"'
    until(lambda: shop.lock("seen_from_inside", f'name="{name}"').holder() is None, "the lock is given back")


def test_duplicate_of_a_running_task_is_the_running_task(shop, name):
    """Whichever way the arguments are written; and when it is over, the next call is new work."""
    gate = shop.gate()
    first = shop.task("guarded").delay(name, gate)
    shop.run_of(first.id)
    assert shop.task("guarded").delay(name=name).id == first.id
    shop.open_gate(gate)
    token = first.get(timeout=20)
    second = until_new(shop.task("guarded"), first.id, name)
    assert second.get(timeout=20) > token


def test_duplicate_of_a_queued_task_is_the_queued_task(shop, name):
    first = shop.task("guarded").apply_async((name,), countdown=60)
    assert shop.task("guarded").delay(name).id == first.id
    assert shop.runs_of(name) == []


def test_duplicate_raises_where_it_is_to(shop, name):
    first = shop.task("guarded_loudly").apply_async((name,), countdown=60)
    with pytest.raises(DuplicateTask) as caught:
        shop.task("guarded_loudly").delay(name)
    assert (caught.value.key, caught.value.holder_task_id) == (f'name="{name}"', first.id)


def test_message_of_a_foreign_producer_is_skipped_at_run(shop, name):
    """`send_task` asks nobody at publish; the run does."""
    gate = shop.gate()
    first = shop.app.send_task("tests.coord_celery.shop.guarded", (name, gate))
    shop.run_of(first.id)
    second = shop.app.send_task("tests.coord_celery.shop.guarded", (name,))
    assert second.get(timeout=20) is None
    shop.open_gate(gate)
    assert first.get(timeout=20)
    assert [run.task_id for run in shop.runs_of(name)] == [first.id]


def test_conflict_fails_where_it_is_to(shop, name):
    gate = shop.gate()
    first = shop.task("guarded_strictly").delay(name, gate)
    shop.run_of(first.id)
    with pytest.raises(SingletonConflict) as caught:
        shop.task("guarded_strictly").delay(name).get(timeout=20)
    assert caught.value.holder_task_id == first.id
    shop.open_gate(gate)


def test_retry_is_not_swallowed(shop, name):
    """celery-singleton#20: a retry is the same task, never a duplicate of itself."""
    result = shop.task("retried").delay(name, 2, 0.2)
    assert result.get(timeout=30)
    runs = shop.runs_of(name)
    assert [run.task_id for run in runs] == [result.id] * 3
    assert_no_overlap(runs)


def test_retry_that_overtakes_its_own_release_waits_for_it(shop, name):
    """It is published before the lock is given back, and another process may have it at once."""
    result = shop.task("retried").delay(name, 2, 0, linger=True)
    assert result.get(timeout=30)
    assert_no_overlap(shop.runs_of(name))


def test_retry_is_sent_although_another_task_has_the_place(shop, name):
    """While it ran, the place in the queue was free; dropping the retry would lose work that was begun."""
    gate = shop.gate()
    first = shop.task("retried_in_the_queue").delay(name, gate)
    shop.run_of(first.id)
    shop.task("retried_in_the_queue").apply_async((name,), countdown=60)
    with pytest.raises(DuplicateTask):
        shop.task("retried_in_the_queue").delay(name)
    shop.open_gate(gate)
    assert first.get(timeout=20) == 1


def test_task_that_waits_for_its_retry_has_the_place(shop, name):
    result = shop.task("retried").delay(name, 1, 60)
    until(lambda: result.state == states.RETRY, "the task waits for its retry")
    assert until_settled(lambda: shop.task("retried").delay(name, 0, 0).id) == result.id
    assert len(shop.runs_of(name)) == 1


def test_autoretry_is_not_swallowed(shop, name):
    """With the raise option too, where celery-singleton took the whole worker down."""
    assert shop.task("retried_automatically").delay(name, 2).get(timeout=30) == 2
    assert len(shop.runs_of(name)) == 3


@pytest.mark.parametrize("how", ["revoke", "expire"])
def test_task_that_will_not_run_frees_its_place(shop, name, how):
    """The place of a revoked or expired task is free as soon as a worker sees it: not after its TTL."""
    options = {"countdown": 1, **({"expires": 0.5} if how == "expire" else {})}
    first = shop.task("guarded").apply_async((name,), **options)
    if how == "revoke":
        first.revoke()
    with pytest.raises(TaskRevokedError):
        first.get(timeout=20)
    second = until_new(shop.task("guarded"), first.id, name)
    assert second.get(timeout=20)
    assert [run.task_id for run in shop.runs_of(name)] == [second.id]


def test_terminated_task_frees_its_lock(shop, name):
    first = shop.task("guarded").delay(name, shop.gate())
    shop.run_of(first.id)
    first.revoke(terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError):
        first.get(timeout=20)
    assert until_new(shop.task("guarded"), first.id, name).get(timeout=20)


def test_hard_time_limit_frees_the_lock(shop, name):
    first = shop.task("guarded_with_limit").delay(name, shop.gate())
    with pytest.raises(TimeLimitExceeded):
        first.get(timeout=20)
    assert until_new(shop.task("guarded_with_limit"), first.id, name).get(timeout=20)


def test_killed_pool_process_frees_its_lock_at_once(shop, name):
    """Long before Celery has made up its mind about the lost task, and with any TTL."""
    first = shop.task("guarded").delay(name, shop.gate())
    run = shop.run_of(first.id)
    killed = time.monotonic_ns()
    os.kill(run.pid, signal.SIGKILL)
    second = until_new(shop.task("guarded"), first.id, name)
    assert second.get(timeout=20) > run.token
    assert (shop.run_of(second.id).start - killed) / 1e9 < 5  # the TTL is 15 s
    with pytest.raises(WorkerLostError):
        first.get(timeout=20)


def test_redelivered_task_runs_again_with_a_greater_token(shop, name):
    """`reject_on_worker_lost`: the same task id comes again and is not its own duplicate."""
    gate = shop.gate()
    first = shop.task("guarded_and_redelivered").delay(name, gate)
    run = shop.run_of(first.id)
    os.kill(run.pid, signal.SIGKILL)
    until(lambda: len(shop.runs_of(name)) == 2, "the task is redelivered")
    shop.open_gate(gate)
    assert first.get(timeout=20) > run.token


def held_under(shop, task_name, name, label):
    """Hold a task's lock as another attempt of that task id would."""
    lock = shop.client.lock(f'/celery/singleton/tests.coord_celery.shop.{task_name}/name="{name}"/lock', label=label)
    assert lock.try_lock()
    return lock


def test_second_delivery_waits_for_the_end_of_the_first(shop, name):
    """Same task id, and its first attempt still holds the lock: not skipped, not run beside it; put back until it can run."""
    first_attempt = held_under(shop, "guarded", name, "twice-delivered")
    result = shop.task("guarded").apply_async((name,), task_id="twice-delivered")
    until(lambda: result.state == states.RETRY, "the task is put back")
    assert isinstance(result.result, SingletonConflict)
    assert shop.runs_of(name) == []
    first_attempt.release()
    assert result.get(timeout=30)
    assert len(shop.runs_of(name)) == 1


def test_skipped_task_gives_up_its_place(shop, name):
    """It was queued when nobody held the lock; when its turn comes, somebody does."""
    first = shop.task("guarded").apply_async((name,), countdown=0.5)
    lock = held_under(shop, "guarded", name, "somebody")
    assert first.get(timeout=20) is None
    lock.release()
    assert shop.task("guarded").delay(name).id != first.id


def test_process_killed_while_it_asks_for_the_lock_gives_up_its_place(shop, name):
    """Nobody in that process can; the main process does, when it reports the task as lost."""
    lock = held_under(shop, "guarded", name, f"asks-{name}")
    first = shop.task("guarded").apply_async((name,), task_id=f"asks-{name}")
    asking = until(lambda: [party for party in lock.waiters() if party.owner.label == first.id], "the task asks")
    os.kill(asking[0].owner.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        first.get(timeout=20)
    lock.release()
    assert until_new(shop.task("guarded"), first.id, name).get(timeout=20)


def test_soft_time_limit_while_asking_leaves_nothing_held(shop, name):
    """It strikes anywhere, also between the question and the answer."""
    lock = held_under(shop, "guarded", name, f"asks-{name}")
    result = shop.task("guarded").apply_async((name,), task_id=f"asks-{name}", soft_time_limit=1)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=20)
    until(lambda: not lock.waiters(), "the task has left the lock's queue, not waited it out", timeout=1.5)
    lock.release()
    assert shop.task("guarded").delay(name).get(timeout=20)


def test_chord_with_a_duplicate_in_its_header_completes(shop, name):
    """Ids of members are promised to the chord: each must end, run or skipped."""
    gate = shop.gate()
    guarded, add_up = shop.task("guarded"), shop.task("add_up")
    result = chord([guarded.s(name, gate), guarded.s(name, gate), guarded.s(f"{name}-other")])(add_up.s())
    until(lambda: len(shop.runs_of(name)) == 1, "one of the two runs")
    until(lambda: any(child.result is None and child.successful() for child in result.parent.children), "the other is skipped")
    shop.open_gate(gate)
    assert result.get(timeout=30) == [False, False, True]
    assert len(shop.runs_of(name)) == 1


def test_chain_with_a_duplicate_goes_on(shop, name):
    gate = shop.gate()
    first = shop.task("guarded").delay(name, gate)
    shop.run_of(first.id)
    guarded, follow = shop.task("guarded"), shop.task("follow")
    assert chain(guarded.si(name), follow.s())().get(timeout=20) == ["followed", None]
    assert chain(follow.si("x"), guarded.si(name), follow.s())().get(timeout=20) == ["followed", None]
    shop.open_gate(gate)
    assert first.get(timeout=20)


def test_callback_of_a_task_is_not_asked_about(shop, name):
    """A link's id is not known to its parent; it is published by the worker and decided at run."""
    gate = shop.gate()
    first = shop.task("guarded").delay(name, gate)
    shop.run_of(first.id)
    linked = shop.task("guarded").si(name)
    linked_result = linked.freeze()
    shop.task("follow").apply_async(("x",), link=linked)
    assert until(lambda: linked_result.successful(), "the callback is skipped")
    shop.open_gate(gate)


def test_eager_and_direct_calls_take_no_lock_and_release_nobodys(shop, name, monkeypatch):
    """celery-singleton, celery-once and heimdall all steal the running task's lock here."""
    monkeypatch.setenv("SHOP_LOG", shop.environment["SHOP_LOG"])
    gate = shop.gate()
    first = shop.task("guarded").delay(name, gate)
    run = shop.run_of(first.id)
    before = unguarded_runs(shop)
    assert shop.task("guarded").apply((name,)).get() is None
    assert shop.task("guarded")(name) is None
    assert unguarded_runs(shop) == before + 2
    holder = shop.lock("guarded", f'name="{name}"').holder()
    assert (holder.owner.label, holder.token) == (first.id, run.token)
    shop.open_gate(gate)
    assert first.get(timeout=20) == run.token


def test_eager_calls_take_the_lock_where_they_are_to(shop, name, monkeypatch):
    monkeypatch.setenv("SHOP_LOG", shop.environment["SHOP_LOG"])
    monkeypatch.setitem(shop.app.conf, "coord_eager", True)
    gate = shop.gate()
    first = shop.task("guarded").delay(name, gate)
    run = shop.run_of(first.id)
    assert shop.task("guarded").apply((name,)).get() is None  # skipped
    with shop.lock("guarded_strictly", f'name="{name}"'), pytest.raises(SingletonConflict):
        shop.task("guarded_strictly")(name)
    shop.open_gate(gate)
    assert first.get(timeout=20) == run.token
    assert shop.task("guarded").apply((name,)).get() > run.token
    assert shop.task("guarded_strictly")(name) > run.token
    assert shop.lock("guarded", f'name="{name}"').holder() is None


def test_failed_publish_leaves_no_reservation(shop, name, monkeypatch):
    """celery-once#123: the broker refused, and the key stayed taken."""
    guarded = shop.task("guarded")
    with pytest.raises(TypeError, match="not JSON serializable"):
        guarded.apply_async((name,), headers={"x": object()})
    assert guarded.delay(name).get(timeout=20)


def test_publish_raises_where_the_service_does_not_answer(shop, name, tmp_path, redis_socket, cluster):
    cut_off = open_shop(tmp_path, redis_socket, cluster, url="coord://127.0.0.1:1/?timeout=300ms")
    with pytest.raises(CoordUnavailable) as caught:
        cut_off.task("guarded").delay(name)
    assert caught.value.key == f'name="{name}"'
    close_shop(cut_off)


def unguarded_runs(shop):
    return sum(run.token is None for run in shop.runs())


def until_new(task, old_id, name):
    """Publish until it is not the old task's duplicate any more; return the new one's result."""
    return until(lambda: (result := task.delay(name)).id != old_id and result, "the key is free again")


def until_settled(ask):
    """Return what two questions in a row answer alike."""
    return until(lambda: (answer := ask()) == ask() and answer, "the answer stays")
