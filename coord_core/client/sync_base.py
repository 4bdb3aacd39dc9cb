"""What the blocking form of every resource begins with: the client on whose loop it runs, and the asynchronous one behind it."""

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from coord_core.client.sync import Client


class _Named(Protocol):
    path: str


Inner = TypeVar("Inner", bound=_Named)


class Blocking(Generic[Inner]):
    """A blocking resource: no logic of its own, each method runs the one of its name."""

    def __init__(self, client: "Client", inner: Inner) -> None:
        self._client = client
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner).replace("Async", "", 1)

    @property
    def path(self) -> str:
        return self._inner.path
