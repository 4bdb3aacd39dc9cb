"""What `@singleton_task` accepts, and what it says where it does not."""

import pytest
from celery import Celery, Task
from coord_celery import SingletonOptions, SingletonTask, singleton_task


@pytest.fixture
def app():
    return Celery("test", broker="memory://", set_as_current=False)


def declare(app, **options):
    @singleton_task(app, shared=False, **options)
    def work(user_id, full=False):
        return user_id

    return work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "all"}, "scope must be one of queued, running, both, not 'all'"),
        ({"on_duplicate": "drop"}, "on_duplicate must be one of"),
        ({"on_conflict": "wait"}, "on_conflict must be one of skip, fail, not 'wait'"),
        ({"on_lost": "die"}, "on_lost must be one of"),
        ({"queued_ttl": 0}, "queued_ttl must be a number of seconds above 0"),
        ({"queued_ttl": "1h"}, "queued_ttl must be a number of seconds above 0"),
        ({"on_unavailable": ("raise",)}, "must be a pair"),
        ({"on_unavailable": ("retry", "retry")}, "on_unavailable at publish must be one of raise, send"),
        ({"on_unavailable": ("raise", "raise")}, "on_unavailable at run must be one of retry, fail"),
        ({"key": "x", "unique_on": ("user_id",)}, "give key or unique_on, not both"),
        ({"unique_on": ["user_id"]}, "unique_on must be a tuple of names"),
        ({"key": "user-{}"}, "name the arguments"),
        ({"key": "user-{user_id"}, "is not a format string"),
        ({"key": 7}, "key must be a format string or a callable"),
        ({"key": "user-{uid}"}, r"no argument named uid; it takes \(user_id, full\)"),
        ({"unique_on": ("uid",)}, "no argument named uid"),
    ],
    ids=str,
)
def test_impossible_value_fails_at_declaration(app, options, message):
    with pytest.raises(ValueError, match=message):
        declare(app, **options)


def test_all_faults_are_reported_at_once():
    with pytest.raises(ValueError, match=r"scope.*; on_lost"):
        SingletonOptions(scope="x", on_lost="y")


@pytest.mark.parametrize(
    ("option", "near"), [("on_conflit", "on_conflict"), ("uniqe_on", "unique_on"), ("auto_retry_for", "autoretry_for")]
)
def test_misspelt_option_fails_at_declaration_and_names_the_right_one(app, option, near):
    """Celery itself would set it as an attribute that nobody reads."""
    with pytest.raises(TypeError, match=f"unknown option '{option}'; did you mean '{near}'"):
        declare(app, **{option: "skip"})


@pytest.mark.parametrize("option", ["until", "rerun_if_dirty", "max_waiting", "wait_timeout", "cooldown"])
def test_option_that_is_not_built_is_refused(app, option):
    with pytest.raises(TypeError, match=f"unknown option '{option}'"):
        declare(app, **{option: 1})


def test_celery_options_reach_celery(app):
    task = declare(app, acks_late=True, name="named", max_retries=7, autoretry_for=(KeyError,), retry_backoff=True)
    assert (task.name, task.acks_late, task.max_retries) == ("named", True, 7)
    assert isinstance(task, SingletonTask)


def test_own_base_class_is_kept(app):
    class Mine(Task):  # type: ignore[misc]
        colour = "red"

        def describe(self):
            return f"{self.colour} {self.name}"

    task = declare(app, base=Mine, colour="blue", name="named")
    assert task.describe() == "blue named"
    assert isinstance(task, SingletonTask)


def test_base_class_works_without_the_decorator(app):
    @app.task(shared=False, base=SingletonTask, singleton=SingletonOptions(unique_on="user_id"))
    def work(user_id, full=False):
        return user_id

    assert work.coord_key((1,), {"full": True}) == work.coord_key((1,), {})


def test_bound_task_does_not_count_self(app):
    @singleton_task(app, shared=False, bind=True, key="user-{user_id}")
    def work(self, user_id):
        return user_id

    assert work.coord_key((7,), {}) == "user-7"
    with pytest.raises(ValueError, match="no argument named self"):
        singleton_task(app, bind=True, unique_on=("self",))(lambda self, user_id: user_id)


def test_autoretry_and_typing_see_the_arguments_of_the_function(app):
    """`autoretry_for` wraps `run`; the key must look through the wrapper."""
    task = declare(app, autoretry_for=(KeyError,))
    assert task.coord_key((1,), {}) == task.coord_key((), {"user_id": 1, "full": False})


def test_first_argument_must_be_an_app(app):
    with pytest.raises(TypeError, match="write @singleton_task"):
        singleton_task(lambda: None)
