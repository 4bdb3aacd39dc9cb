"""What a parking lot is made of, and how it looks in a snapshot.

A *lot* has *bays*, one a key, where *pieces* wait in order of their tickets, and *bins*, the logs that have their messages.  What
happens to them is decided in `parking`.

A piece is, one after the other:
- *waiting*: in `Bay.waiting`;
- *called*: in `Bay.called`, with a delivery that its consumer has not committed, or committed and still to come; or *expired*: in
  neither, with a delivery.  With the commit its message is let go of.
- gone; its bay remembers the seat of one that was called.
"""

from bisect import bisect_left, insort
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

import msgspec

from coord_core.machine.bounds import BIN_BYTES, BIN_PIECES, SEATS_MAX
from coord_core.machine.cursors import Group, GroupRow
from coord_core.machine.names import Named
from coord_core.machine.timers import Timer, TimerRow
from coord_core.protocol.parking import Park
from coord_core.types import LogIndex, TopicNumber

#: A bin in a snapshot: number, records ever, their bytes, pieces left.
BinRow: TypeAlias = tuple[TopicNumber, int, int, int]

_ticket = attrgetter("ticket")

#: About what each takes in a snapshot.
_LOT_BYTES, _BIN_BYTES, _BAY_BYTES, _PIECE_BYTES, _SEAT_BYTES = 96, 20, 48, 64, 16


class Bin:
    """A log of messages, gone when no piece is left in it."""

    __slots__ = ("bytes", "end", "left", "number")

    def __init__(self, number: TopicNumber, end: int = 0, size: int = 0, left: int = 0) -> None:
        self.number = number
        self.end = end
        self.bytes = size
        #: Pieces whose messages are in it.
        self.left = left

    @property
    def earliest(self) -> int:
        return 0

    def has_room(self, size: int) -> bool:
        return self.bytes + size <= BIN_BYTES and self.end < BIN_PIECES

    def add(self, size: int) -> int:
        """Take up a message of so many bytes; return its offset."""
        offset = self.end
        self.end += 1
        self.bytes += size
        self.left += 1
        return offset

    def row(self) -> BinRow:
        return self.number, self.end, self.bytes, self.left


class Piece:
    __slots__ = ("at", "bin", "committed", "delivery", "expired", "grace_ms", "id", "passed", "since_ms", "size", "ticket", "timer")

    def __init__(self, name: str, ticket: LogIndex, since_ms: int, grace_ms: int) -> None:
        self.id = name
        #: Its place among those of its key.
        self.ticket = ticket
        self.since_ms = since_ms
        self.grace_ms = grace_ms
        #: Where its message is: bin and offset in it.  Meaningless once it is committed.
        self.bin = TopicNumber(0)
        self.at = 0
        self.size = 0
        #: Until it expires, while it waits; until it is waited for no more, when it is committed.
        self.timer: Timer | None = None
        #: Its offset among the deliveries of its lot; None while it waits.
        self.delivery: int | None = None
        self.expired = False
        self.committed = False
        #: Somebody was granted its gate since it was called: itself, or one who was faster.
        self.passed = False

    @property
    def has_message(self) -> bool:
        return not self.committed


class Bay(Named):
    __slots__ = ("called", "gate", "key", "path", "permits", "pieces", "seats", "waiting")

    kind: ClassVar[str] = "bay"

    def __init__(self, path: str, key: str, gate: str, permits: int) -> None:
        #: Of its lot.
        self.path = path
        self.key = key
        #: The path of the lock or semaphore, and what a piece takes of it.
        self.gate = gate
        self.permits = permits
        #: All that are here, by id.
        self.pieces: dict[str, Piece] = {}
        #: In order of their tickets.
        self.waiting: list[Piece] = []
        #: Those with a place at the gate, in order of their calls.
        self.called: dict[str, Piece] = {}
        #: Tickets of those that were called lately, by id.
        self.seats: dict[str, LogIndex] = {}

    @property
    def name(self) -> str:
        """What it is bound to; no path begins so, and no two bays have the same."""
        return f"bay:{len(self.path)}:{self.path}{self.key}"

    def enqueue(self, piece: Piece) -> None:
        insort(self.waiting, piece, key=_ticket)

    def place(self, piece: Piece) -> int:
        """Return how many wait before it."""
        return bisect_left(self.waiting, piece.ticket, key=_ticket)

    def remember(self, piece: Piece) -> None:
        """Keep the seat of a piece that is called."""
        self.seats.pop(piece.id, None)
        self.seats[piece.id] = piece.ticket
        if len(self.seats) > SEATS_MAX:
            del self.seats[next(iter(self.seats))]


class Lot(Named):
    __slots__ = ("bays", "bins", "bytes", "deliveries", "end", "groups", "number", "offsets", "pieces")

    kind: ClassVar[str] = "parking"

    def __init__(self, number: TopicNumber) -> None:
        #: Index of the entry that made it: tells it from a later one of the same path.
        self.number = number
        self.bays: dict[str, Bay] = {}
        #: By number, which rises.
        self.bins: dict[TopicNumber, Bin] = {}
        #: Pieces whose messages are kept, and the bytes of these.
        self.pieces = 0
        self.bytes = 0
        #: Of the next delivery; those that are not committed; and their offsets, in order.
        self.end = 0
        self.deliveries: dict[int, tuple[Bay, Piece]] = {}
        self.offsets: list[int] = []
        #: The one consumer group, as a topic's.
        self.groups: dict[str, Group] = {}

    @property
    def earliest(self) -> int:
        return self.offsets[0] if self.offsets else self.end

    @property
    def kept(self) -> "Lot":
        """For `cursors`: deliveries from `earliest` to before `end`."""
        return self

    def deliver(self, bay: Bay, piece: Piece) -> None:
        """Give a piece the next offset."""
        piece.delivery = self.end
        self.offsets.append(self.end)
        self.deliveries[self.end] = bay, piece
        self.end += 1

    def withdraw(self, piece: Piece) -> None:
        """Take a delivery back that is not committed."""
        assert piece.delivery is not None
        del self.deliveries[piece.delivery]
        del self.offsets[bisect_left(self.offsets, piece.delivery)]

    def restore(self, bay: Bay, piece: Piece) -> None:
        assert piece.delivery is not None
        insort(self.offsets, piece.delivery)
        self.deliveries[piece.delivery] = bay, piece


class LotRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lot in a snapshot, without its bays."""

    path: str
    number: TopicNumber
    end: int
    bins: list[BinRow]
    groups: list[GroupRow]


class PieceRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece in a snapshot."""

    id: str
    ticket: LogIndex
    since_ms: int
    grace_ms: int
    bin: TopicNumber
    at: int
    size: int
    timer: TimerRow | None
    delivery: int | None
    expired: bool
    committed: bool
    passed: bool


class BayRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A bay in a snapshot: what waits in order, what is called in order, and then what has expired."""

    path: str
    key: str
    gate: str
    permits: int
    pieces: list[PieceRow]
    seats: list[tuple[str, LogIndex]]


def lot_row(path: str, lot: Lot, groups: list[GroupRow]) -> tuple[LotRow, int]:
    bins = [each.row() for each in lot.bins.values()]
    return LotRow(path, lot.number, lot.end, bins, groups), _LOT_BYTES + len(path) + _BIN_BYTES * len(bins)


def bay_row(bay: Bay) -> tuple[BayRow, int]:
    expired = sorted((piece for piece in bay.pieces.values() if piece.expired), key=attrgetter("delivery"))
    pieces = [_piece_row(piece) for piece in (*bay.waiting, *bay.called.values(), *expired)]
    size = sum(_PIECE_BYTES + len(piece.id) for piece in pieces) + sum(_SEAT_BYTES + len(name) for name in bay.seats)
    row = BayRow(bay.path, bay.key, bay.gate, bay.permits, pieces, list(bay.seats.items()))
    return row, _BAY_BYTES + len(bay.path) + len(bay.key) + len(bay.gate) + size


def restored_bay(row: BayRow) -> Bay:
    """Return a bay with its pieces; their timers, and their places in the lot, are for others to restore."""
    bay = Bay(row.path, row.key, row.gate, row.permits)
    bay.seats = dict(row.seats)
    for each in row.pieces:
        piece = _restored_piece(each)
        bay.pieces[piece.id] = piece
        if piece.delivery is None:
            bay.waiting.append(piece)
        elif not piece.expired:
            bay.called[piece.id] = piece
    return bay


def new_piece(operation: Park, ticket: LogIndex, since_ms: int) -> Piece:
    return Piece(operation.id, ticket, since_ms, operation.grace_ms)


def state(row: msgspec.Struct) -> Any:
    return msgspec.to_builtins(row)


def _piece_row(piece: Piece) -> PieceRow:
    timer = None if piece.timer is None else piece.timer.row()
    place = (piece.bin, piece.at, piece.size)
    flags = (piece.expired, piece.committed, piece.passed)
    return PieceRow(piece.id, piece.ticket, piece.since_ms, piece.grace_ms, *place, timer, piece.delivery, *flags)


def _restored_piece(row: PieceRow) -> Piece:
    piece = Piece(row.id, row.ticket, row.since_ms, row.grace_ms)
    piece.bin, piece.at, piece.size = row.bin, row.at, row.size
    piece.delivery = row.delivery
    piece.expired, piece.committed, piece.passed = row.expired, row.committed, row.passed
    return piece
