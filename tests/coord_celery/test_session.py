"""What the main process tells its children of the session: one session's number with that session's lease, or nothing."""

from types import SimpleNamespace
from typing import Any

from coord_celery.session import WorkerSession

OLD, NEW = 100, 200


def session_of(view: Any) -> WorkerSession:
    session = WorkerSession(SimpleNamespace(url=""), None)  # type: ignore[arg-type]
    session._client = SimpleNamespace(session=view)  # type: ignore[assignment]
    session._session_id = OLD
    return session


def test_lease_is_told_with_the_session_it_belongs_to():
    assert session_of(SimpleNamespace(session_id=OLD, lease_deadline=1.5)).lease() == (OLD, 1_500_000_000)


def test_a_lost_session_has_no_lease():
    assert session_of(SimpleNamespace(session_id=None, lease_deadline=None)).lease() == (0, 0)


def test_another_sessions_lease_is_never_told_under_the_old_number():
    """A child of the old session that got the new one's deadline would believe in a lock that is free."""

    class Reopening:
        """Lost and opened anew between the two readings."""

        session_id = OLD

        @property
        def lease_deadline(self) -> float:
            self.session_id = NEW
            return 30.0

    assert session_of(Reopening()).lease() == (0, 0)
    assert session_of(SimpleNamespace(session_id=NEW, lease_deadline=30.0)).lease() == (0, 0)
