"""`client.session`: what a program may see of its session, from any thread."""

from collections.abc import Callable

from coord_core.client.session import ClientSession, SessionState
from coord_core.types import AttachmentId, SessionId


class SessionView:
    """The present session of a client.  Before the first use there is none yet: `state` is CONNECTING, the numbers are None."""

    def __init__(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._session: ClientSession | None = None
        self._listeners: list[Callable[[SessionState], object]] = []

    def __repr__(self) -> str:
        return f"<session {self.session_id} {self.state.value}>"

    @property
    def session_id(self) -> SessionId | None:
        return None if self._session is None else self._session.session_id

    @property
    def attachment_id(self) -> AttachmentId | None:
        """This process's part of the session: what it acquires is held by it."""
        return None if self._session is None else self._session.attachment_id

    @property
    def state(self) -> SessionState:
        return SessionState.CONNECTING if self._session is None else self._session.state

    @property
    def lease_deadline(self) -> float | None:
        """Until when, on `coord_core.client.clock` (seconds), holdings may be believed in; moves with every keep-alive."""
        deadline_ms = None if self._session is None else self._session.lease_deadline_ms
        return None if deadline_ms is None else deadline_ms / 1000

    @property
    def ttl(self) -> float:
        """Seconds for which the cluster keeps the session without hearing of it."""
        return (self._ttl_ms if self._session is None else self._session.ttl_ms) / 1000

    def on_state_change(self, callback: Callable[[SessionState], object]) -> Callable[[], None]:
        """Have `callback(state)` called after every change, in order, on a thread of its own.  Return a function that ends it."""
        self._listeners.append(callback)

        def end() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return end

    def bind(self, session: ClientSession) -> None:
        """Show this session from now on (for the client itself)."""
        self._session = session

    def listeners(self) -> tuple[Callable[[SessionState], object], ...]:
        return tuple(self._listeners)
