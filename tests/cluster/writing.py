"""A client that writes all the time, and knows afterwards what must be there."""

import threading
from types import TracebackType

import coord_core
from coord_core.errors import CoordError
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S

KEYS = 20


class Writer:
    """Context manager: writes rising numbers to a few keys from entry to exit, on a thread of its own."""

    def __init__(self, client: coord_core.Client, size: int = 100) -> None:
        """`size`: bytes of each value."""
        self._client = client
        self._size = size
        self._last = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        #: What was acknowledged last, and what was tried last, by key.
        self._acknowledged: dict[str, int] = {}
        self._tried: dict[str, int] = {}
        self.acknowledged = 0

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._enough.set()
        self._thread.join(PATIENCE_S)

    def wait_more(self, count: int = 20) -> None:
        """Wait until so many more writes were acknowledged."""
        enough = self.acknowledged + count
        until(lambda: self.acknowledged >= enough, PATIENCE_S, f"{count} more acknowledged writes")

    def check(self) -> None:
        """Every key has what was acknowledged last, or what was tried after it and of which nothing is known."""
        for key, number in self._acknowledged.items():
            found = self._client.value(key).get()
            assert found is not None, f"{key}: {number} was acknowledged, and there is nothing"
            assert number <= int(found.value) <= self._tried[key], f"{key}: {number} was acknowledged, {int(found.value)} is there"

    def _write(self) -> None:
        while not self._enough.is_set():
            self._last += 1
            key = f"/written/{self._last % KEYS}"
            self._tried[key] = self._last
            try:
                self._client.value(key).set(str(self._last).encode().rjust(self._size))
            except CoordError:
                continue
            self._acknowledged[key] = self._last
            self.acknowledged += 1
