"""The rolling hash: one number that follows from every entry applied so far and from what each of them did.

Nodes that applied the same log have the same number at the same index, and once they differ they go on differing.  So one number
at a fixed index tells whether two nodes have gone different ways, for less than half a microsecond an entry; `Machine.digest` tells
the same of the whole state, and takes seconds over a million locks.

What goes in: the entry's index, the cluster time after it, the answer to its command, the answers it made for earlier requests, the
sessions it ended, the streams to which it added, what topics let go of.  Of a refusal only the code: a release may put it in other
words, and members of two releases must still agree.  Everything else counts to the byte, so a field added to a result is a change
of the machine's version (`versions`).

It is two checksums of one stream, CRC-32 above Adler-32, which go on from their last values.  Neither resists who looks for
a collision; but nobody can choose how two machines will differ.
"""

from collections.abc import Sequence
from typing import Any
from zlib import adler32, crc32

import msgspec

from coord_core.machine.entry import CurrentEntry
from coord_core.protocol.results import Failed, Result
from coord_core.types import AttachmentId, RequestNumber

#: Of a machine whose first entries nobody hashed: it came out of a snapshot that does not say.
UNKNOWN = 0

# What zlib begins with.
_CRC_FIRST, _ADLER_FIRST = 0, 1

_encode = msgspec.msgpack.Encoder().encode

_Replies = Sequence[tuple[AttachmentId, RequestNumber, Result]]


class RollingHash:
    __slots__ = ("_adler", "_crc", "_known")

    def __init__(self) -> None:
        self._crc, self._adler = _CRC_FIRST, _ADLER_FIRST
        self._known = True

    @property
    def value(self) -> int:
        """64 bits; UNKNOWN says nothing about any other machine's."""
        return self._crc << 32 | self._adler if self._known else UNKNOWN

    def add(self, entry: CurrentEntry, result: Result | None) -> None:
        """Take in the entry just applied and the answer to its command."""
        told: Any = result.code if type(result) is Failed else result
        replies: Any = entry.replies
        if replies:
            replies = _less_words(replies)
        data = _encode((entry.index, entry.time_ms, told, replies, entry.closed))
        if entry.emitted:
            data += _encode(entry.emitted)
        if entry.trimmed:
            data += _encode(entry.trimmed)
        self._crc = crc32(data, self._crc)
        self._adler = adler32(data, self._adler)

    def begin_anew(self) -> None:
        """From here on every machine has the same behind it: the version rose.  So those that did not know theirs do again."""
        self.restore(_CRC_FIRST << 32 | _ADLER_FIRST)

    def restore(self, value: int) -> None:
        """Go on from the value of another machine, or not to know any from here on."""
        self._known = value != UNKNOWN
        self._crc, self._adler = value >> 32, value & 0xFFFF_FFFF


def _less_words(replies: _Replies) -> list[Any]:
    return [(attachment, request, told.code if type(told) is Failed else told) for attachment, request, told in replies]
