"""What clients write down, one JSON line each, with one write each: what a killed process had written is there to be judged.

All times are nanoseconds of the clock of leases, which all processes of a machine share.  A call is written before it is sent and
its return after the answer came, so the true moment of an effect lies between the two.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from coord_core.client.clocks import clock


class _Line(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="is"):
    at: int


class Called(_Line, frozen=True, tag="call"):
    #: Unique in its file.
    number: int
    client: str
    key: str
    #: get, set, cas, delete; acquire, release, look; add.
    action: str
    #: Unique in the whole history, or a counter's next count.
    value: str = ""
    #: The version it must replace.
    expected: int | None = None
    token: int = 0


class Returned(_Line, frozen=True, tag="return"):
    number: int
    #: seen, written, deleted; holds, held, released, lost; nothing (not granted), denied (surely not applied), unknown.
    result: str
    version: int = 0
    value: str = ""
    token: int = 0


class Believed(_Line, frozen=True, tag="belief"):
    """The client believed from `began` to `until` that it held the lock.

    Written at the beginning, too: it may not live to the end.
    """

    client: str
    key: str
    token: int
    began: int
    until: int


class Turned(_Line, frozen=True, tag="session"):
    """A session changed its state."""

    client: str
    state: str


class Proved(_Line, frozen=True, tag="proved"):
    """After everything was healed this client did all its kinds of work once."""

    client: str


Record: TypeAlias = Called | Returned | Believed | Turned | Proved

_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()


def now_ns() -> int:
    return int(clock() * 1e9)


class Recorder:
    """Appends to one file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._last = 0

    def write(self, record: Record) -> None:
        os.write(self._file, _encoder.encode(record) + b"\n")

    def call(self, client: str, key: str, action: str, *, value: str = "", expected: int | None = None, token: int = 0) -> int:
        self._last += 1
        self.write(Called(now_ns(), self._last, client, key, action, value, expected, token))
        return self._last

    def returned(self, number: int, result: str, *, version: int = 0, value: str = "", token: int = 0) -> None:
        self.write(Returned(now_ns(), number, result, version, value, token))


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a file.  Its last line may be half a line, where its writer was killed."""
    *lines, _ = path.read_bytes().split(b"\n")
    yield from map(_decoder.decode, lines)
