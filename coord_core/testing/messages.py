"""What workers do with topics: publish, fetch from anywhere, change what is kept, delete and begin anew.

Payloads are unique names.  What a client was told of a message, by an acknowledgement or in a fetch, every later word of it must
agree with: `checkers.records` sees to that.
"""

import random
from collections.abc import Callable

from coord_core.client.session import Outcome
from coord_core.errors import CoordError
from coord_core.protocol.results import Done
from coord_core.protocol.topics import (
    EARLIEST,
    LATEST,
    Published,
    Retention,
    TopicConfigure,
    TopicDelete,
    TopicFetch,
    TopicFetched,
    TopicPublish,
)
from coord_core.testing.checkers.records import RecordChecks
from coord_core.testing.client import ClientProcess
from coord_core.testing.simulator import Violation

TOPICS = ("/topics/a", "/topics/b")


class Messages:
    """What one worker does with topics, one thing at a time; `done` when it is over."""

    def __init__(self, process: ClientProcess, checks: RecordChecks, rng: random.Random, done: Callable[[], None]) -> None:
        self._process = process
        self._checks = checks
        self._rng = rng
        self._done = done

    def act(self, name: str) -> str:
        """Begin something, under a name that nothing else has; return what, for people."""
        draw, path = self._rng.random(), self._rng.choice(TOPICS)
        if draw < 0.6:
            return self._publish(path, name.encode())
        if draw < 0.93:
            return self._fetch(path)
        if draw < 0.99:
            retention = Retention(self._rng.choice((300, 2**20)), self._rng.choice((None, 1, 8)), self._rng.choice((None, 3_000)))
            return self._change(TopicConfigure(path, retention))
        return self._change(TopicDelete(path))

    def _publish(self, path: str, payload: bytes) -> str:
        payload = payload.ljust(self._rng.choice((0, 0, 100)), b".")
        timeout_ms = self._rng.choice((None, 300, 3_000))

        def then(outcome: Outcome) -> None:
            match outcome:
                case Published(offset=offset, topic=topic):
                    self._checks.acknowledged(topic, offset, payload)
                case CoordError():
                    pass
                case _:
                    raise Violation(f"a publish to {path} came back as {outcome}")
            self._done()

        self._process.call(TopicPublish(path, payload), then, timeout_ms=timeout_ms)
        return f"publish to {path}"

    def _fetch(self, path: str) -> str:
        start = self._rng.choice((EARLIEST, LATEST, 0, self._rng.randint(0, 50)))
        query = TopicFetch(path, start, self._rng.choice((1, 5, 1_000)), self._rng.choice((1, 500, 100_000)))
        known = self._checks.ends()

        def then(outcome: Outcome) -> None:
            match outcome:
                case TopicFetched():
                    self._checks.fetched(outcome, known)
                case CoordError():
                    pass
                case _:
                    raise Violation(f"a fetch of {path} came back as {outcome}")
            self._done()

        self._process.ask(query, then)
        return f"fetch {path} from {start}"

    def _change(self, operation: TopicConfigure | TopicDelete) -> str:
        def then(outcome: Outcome) -> None:
            if not isinstance(outcome, Done | CoordError):
                raise Violation(f"{operation} came back as {outcome}")
            self._done()

        self._process.call(operation, then)
        return f"{type(operation).__name__} {operation.path}"
