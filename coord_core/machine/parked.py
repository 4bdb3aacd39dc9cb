"""What is told of parking lots, and which pieces are refused: everything about them that changes nothing.  See `parking`."""

from bisect import bisect_left
from heapq import nsmallest
from typing import Any, NamedTuple

from coord_core.machine import refusals
from coord_core.machine.bays import Bay, Lot, Piece
from coord_core.machine.claims import Queued
from coord_core.machine.cursors import Claim
from coord_core.machine.topics import RECORD_BYTES
from coord_core.protocol.parking import (
    DELIVERIES_FETCHED_MAX,
    GRACE_MS_MAX,
    MESSAGE_BYTES_MAX,
    PIECE_ID_BYTES_MAX,
    PIECE_KEY_BYTES_MAX,
    PIECES_NAMED_MAX,
    WAITING_MAX,
    Delivery,
    Park,
    ParkedKey,
    ParkedList,
    ParkedListing,
    ParkingFetch,
    ParkingFetched,
    ParkingFull,
    ParkingInfo,
    ParkingState,
    WaitingPiece,
)
from coord_core.protocol.results import Failed
from coord_core.protocol.semaphores import PERMITS_MAX
from coord_core.protocol.topics import FETCH_BYTES_MAX
from coord_core.types import TopicNumber

#: The one consumer group of a lot.
GROUP = "consumer"


class Placed(NamedTuple):
    """A delivery without its message, and where that is."""

    delivery: Delivery
    bin: TopicNumber
    at: int


# --- what is told ----------------------------------------------------------------------------------------------------------------


def placed(lot: Lot | None, query: ParkingFetch, now_ms: int) -> tuple[ParkingFetched, list[Placed]]:
    """Return the answer to a fetch without its deliveries, and these without their messages."""
    if lot is None:
        return ParkingFetched(TopicNumber(0), (), 0, 0), []
    begin, found, size = bisect_left(lot.offsets, query.start), list[Placed](), 0
    for offset in lot.offsets[begin : begin + query.deliveries_max]:
        bay, piece = lot.deliveries[offset]
        size += piece.size
        if found and size > query.bytes_max:
            break
        found.append(_placed(offset, bay, piece, now_ms))
    is_all = begin + len(found) == len(lot.offsets)
    return ParkingFetched(lot.number, (), lot.end if is_all else found[-1].delivery.offset + 1, lot.end), found


def _placed(offset: int, bay: Bay, piece: Piece, now_ms: int) -> Placed:
    delivery = Delivery(offset, bay.key, piece.id, b"", piece.expired, now_ms - piece.since_ms, piece.ticket)
    return Placed(delivery, piece.bin, piece.at)


def info(lot: Lot | None, query: ParkingInfo, now_ms: int) -> ParkingState:
    if lot is None:
        return ParkingState(TopicNumber(0), 0, 0, 0, 0, 0, ())
    most = max(0, min(query.keys_max, PIECES_NAMED_MAX))
    keys = nsmallest(most, (key for key in lot.bays if key > query.after)) if most else []
    told = tuple(_key(lot.bays[key], now_ms) for key in keys)
    claim = claim_of(lot)
    owner = None if claim is None else claim.owner
    return ParkingState(lot.number, lot.pieces, lot.bytes, len(lot.offsets), lot.end, len(lot.bays), told, owner)


def _key(bay: Bay, now_ms: int) -> ParkedKey:
    oldest_ms = now_ms - bay.waiting[0].since_ms if bay.waiting else 0
    return ParkedKey(bay.key, bay.gate, len(bay.waiting), len(bay.called), oldest_ms)


def listing(lot: Lot | None, query: ParkedList, now_ms: int) -> ParkedListing:
    bay = None if lot is None else lot.bays.get(query.key)
    if bay is None:
        return ParkedListing((), 0)
    most = max(0, min(query.pieces_max, PIECES_NAMED_MAX))
    return ParkedListing(tuple(_waiting(piece, now_ms) for piece in bay.waiting[:most]), len(bay.waiting))


def _waiting(piece: Piece, now_ms: int) -> WaitingPiece:
    return WaitingPiece(piece.id, now_ms - piece.since_ms, None if piece.timer is None else piece.timer.deadline_ms - now_ms)


# --- what is so ------------------------------------------------------------------------------------------------------------------


def has_room(gate: Any, bay: Bay) -> bool:
    """Return whether one more can be called.  Where nothing is bound there is room for one; for how many more, nobody has said."""
    if isinstance(gate, Queued):
        return gate.has_room((len(bay.called) + 1) * bay.permits)
    return not bay.called


def claim_of(lot: Lot) -> Claim | None:
    """Return the claim of its consumer."""
    group = lot.groups.get(GROUP)
    return None if group is None else group.claim


def turn(bay: Bay) -> tuple[int, str]:
    """Orders bays that wait for one gate."""
    return bay.waiting[0].ticket if bay.waiting else 0, bay.name


def size_of(operation: Park) -> int:
    """Return what a message counts as."""
    return len(operation.message) + len(operation.id.encode()) + RECORD_BYTES


# --- what is refused -------------------------------------------------------------------------------------------------------------


def check_park(operation: Park) -> Failed | None:
    for field, text, most in (("key", operation.key, PIECE_KEY_BYTES_MAX), ("id", operation.id, PIECE_ID_BYTES_MAX)):
        if not 1 <= refusals.utf8_length(text) <= most:
            return refusals.invalid(field, f"must be 1 to {most} bytes of UTF-8")
    if len(operation.message) > MESSAGE_BYTES_MAX:
        return refusals.over_limit("bytes of a message", MESSAGE_BYTES_MAX, len(operation.message))
    for field, number, most in (
        ("permits", operation.permits, PERMITS_MAX),
        ("waiting_max", operation.waiting_max, WAITING_MAX),
        ("grace_ms", operation.grace_ms, GRACE_MS_MAX),
    ):
        if not 1 <= number <= most:
            return refusals.invalid(field, f"must be between 1 and {most}")
    return None if operation.wait_ms is None else refusals.check_duration("wait_ms", operation.wait_ms, 1)


def check_bay(bay: Bay | None, operation: Park) -> Failed | None:
    if bay is None or (bay.gate, bay.permits) == (operation.gate, operation.permits):
        return None
    return refusals.invalid("gate", f"the pieces of this key wait for {bay.gate}, {bay.permits} of it each")


def check_full(bay: Bay | None, operation: Park) -> ParkingFull | None:
    if bay is None or len(bay.waiting) < operation.waiting_max or operation.id in bay.seats:
        return None
    return ParkingFull(len(bay.waiting))


def check_fetch(query: ParkingFetch) -> Failed | None:
    if query.start < 0:
        return refusals.invalid("start", "must be an offset")
    if not 1 <= query.deliveries_max <= DELIVERIES_FETCHED_MAX:
        return refusals.invalid("deliveries_max", f"must be between 1 and {DELIVERIES_FETCHED_MAX}")
    if not 1 <= query.bytes_max <= FETCH_BYTES_MAX:
        return refusals.invalid("bytes_max", f"must be between 1 and {FETCH_BYTES_MAX}")
    return None
