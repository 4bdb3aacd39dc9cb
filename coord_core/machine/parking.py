"""Parking lots: pieces of work that wait for a lock or a semaphore without holding anything, and are called when there is room.

Rules (ADR 14):
- Where a piece waits, its gate has no room for it, or one of its key was called and keeps a place there.  Whatever makes room
  calls the next in the same entry: what the gate tells (`gates`) is looked at when the entry's command is done.
- A called piece keeps its place until its consumer has committed it and somebody was granted the gate since it was called; or,
  after the commit, until its grace is over.
- What was called and comes back has its old ticket; its delivery, where that is not committed, is withdrawn.
- A piece belongs to nobody: it stays when the session that parked it ends.  Only the claim of the consumer goes.
- A lot exists as long as it has a piece or a consumer, a bay as long as it has a piece.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from coord_core import errors
from coord_core.machine import cursors, refusals
from coord_core.machine.bays import Bay, BayRow, Bin, Lot, LotRow, Piece, bay_row, lot_row, new_piece, restored_bay, state
from coord_core.machine.cursors import Claim, Cursors
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.locks import Lock
from coord_core.machine.logs import Logs
from coord_core.machine.lots import Lots
from coord_core.machine.names import Names
from coord_core.machine.parked import (
    GROUP,
    Placed,
    check_bay,
    check_fetch,
    check_full,
    check_park,
    claim_of,
    has_room,
    info,
    listing,
    placed,
    size_of,
    turn,
)
from coord_core.machine.resources import OperationHandler, QueryHandler, StateOf
from coord_core.machine.semaphores import Semaphore
from coord_core.machine.sessions import Attachment, Sessions
from coord_core.machine.stream import decode
from coord_core.machine.streams import Streams
from coord_core.machine.timers import Timers
from coord_core.protocol.parking import (
    DELIVERIES_COMMITTED_MAX,
    Park,
    Parked,
    ParkedList,
    ParkedListing,
    ParkingClaim,
    ParkingCommit,
    ParkingFetch,
    ParkingFetched,
    ParkingFull,
    ParkingInfo,
    ParkingRelease,
    ParkingState,
    Unpark,
    Unparked,
)
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.topics import MessagePublished, TopicClaim, TopicCommit, TopicRelease
from coord_core.types import RequestNumber

_DONE = Done()

_decode_lots = msgspec.msgpack.Decoder(list[LotRow]).decode
_decode_bays = msgspec.msgpack.Decoder(list[BayRow]).decode


class Parking:
    __slots__ = ("_cursors", "_entry", "_logs", "_lots", "_names", "_streams", "_timers")

    def __init__(self, entry: CurrentEntry, sessions: Sessions, names: Names, timers: Timers, streams: Streams, logs: Logs) -> None:
        self._entry = entry
        self._names = names
        self._timers = timers
        self._streams = streams
        self._logs = logs
        self._cursors = Cursors(entry, sessions)
        self._lots = Lots(entry, names, streams, logs)
        entry.gates.watched = self._lots.of_gate

    @property
    def operations(self) -> Mapping[type[Any], OperationHandler]:
        return {
            Park: self._park,
            Unpark: self._unpark,
            ParkingClaim: self._claim,
            ParkingCommit: self._commit,
            ParkingRelease: self._release,
        }

    @property
    def queries(self) -> Mapping[type[Any], QueryHandler]:
        return {ParkingInfo: self._info, ParkedList: self._list, ParkingFetch: self._fetch}

    @property
    def watched(self) -> Mapping[str, StateOf]:
        return {Lot.kind: self._state}

    # --- pieces ------------------------------------------------------------------------------------------------------------------

    def _park(self, attachment: Attachment, request: RequestNumber, operation: Park) -> Result:
        fault = check_park(operation) or self._check_gate(operation.gate)
        if fault is not None:
            return fault
        lot = self._names.find(operation.path, Lot)
        if isinstance(lot, Failed):
            return lot
        bay = None if lot is None else lot.bays.get(operation.key)
        piece = None if bay is None else bay.pieces.get(operation.id)
        fault = check_bay(bay, operation)
        if fault is not None:
            return fault
        if lot is not None and bay is not None and piece is not None and piece.delivery is None:
            return self._waits_already(lot, bay, piece, operation)
        refusal: Failed | ParkingFull | None = check_full(bay, operation) or self._lots.check_room(lot, size_of(operation))
        if refusal is not None:
            return refusal
        place = self._lots.open(lot, bay, operation)
        if isinstance(place, Failed):
            return place
        lot, bay = place
        if piece is not None:
            self._take_out(lot, bay, piece)
        return self._put(lot, bay, operation)

    def _put(self, lot: Lot, bay: Bay, operation: Park) -> Parked:
        entry = self._entry
        piece = new_piece(operation, bay.seats.pop(operation.id, entry.index), entry.time_ms)
        self._lots.keep_message(lot, piece, operation)
        bay.pieces[piece.id] = piece
        bay.enqueue(piece)
        self._set_patience(bay, piece, operation.wait_ms)
        self._go_on(lot, bay)
        called = piece.delivery is not None
        return Parked(0 if called else bay.place(piece), called, is_new=True)

    def _waits_already(self, lot: Lot, bay: Bay, piece: Piece, operation: Park) -> Result:
        if operation.replace:
            refusal = self._lots.check_room(lot, max(0, size_of(operation) - piece.size), pieces=0)
            if refusal is not None:
                return refusal
            self._names.get(bay.name)
            self._lots.let_go(lot, piece)
            self._lots.keep_message(lot, piece, operation)
            self._unset_timer(piece)
            self._set_patience(bay, piece, operation.wait_ms)
            piece.grace_ms = operation.grace_ms
        return Parked(bay.place(piece), called=False, is_new=False)

    def _unpark(self, attachment: Attachment, request: RequestNumber, operation: Unpark) -> Result:
        lot = self._names.find(operation.path, Lot)
        if isinstance(lot, Failed):
            return lot
        bay = None if lot is None else lot.bays.get(operation.key)
        piece = None if bay is None else bay.pieces.get(operation.id)
        if lot is None or bay is None or piece is None:
            return Unparked("")
        self._names.get(bay.name)
        was = "waiting" if piece.delivery is None else "called"
        self._take_out(lot, bay, piece)
        bay.seats.pop(piece.id, None)
        self._settle(lot, bay)
        return Unparked(was)

    # --- the consumer ------------------------------------------------------------------------------------------------------------

    def _claim(self, attachment: Attachment, request: RequestNumber, operation: ParkingClaim) -> Result:
        fault = refusals.check_owner(operation.owner)
        if fault is not None:
            return fault
        lot = self._names.find(operation.path, Lot)
        if lot is None:
            lot = self._lots.make(operation.path)
        if isinstance(lot, Failed):
            return lot
        claim = TopicClaim(operation.path, GROUP, operation.owner, operation.takeover)
        return self._cursors.claim(attachment, request, lot, claim)

    def _commit(self, attachment: Attachment, request: RequestNumber, operation: ParkingCommit) -> Result:
        lot = self._names.find(operation.path, Lot)
        if isinstance(lot, Failed):
            return lot
        claim = None if lot is None else claim_of(lot)
        if lot is None or claim is None or claim.attachment is not attachment:
            return refusals.refuse(errors.NotHolder, f"this process is not the consumer of {operation.path}", path=operation.path)
        count = bisect_left(lot.offsets, operation.offset)
        if count > DELIVERIES_COMMITTED_MAX:
            return refusals.invalid(
                "offset", f"covers {count} deliveries, at most {DELIVERIES_COMMITTED_MAX} are committed at once"
            )
        committed = self._cursors.commit(attachment, lot, TopicCommit(operation.path, GROUP, operation.offset))
        if not isinstance(committed, Failed):
            done = lot.offsets[:count]
            del lot.offsets[:count]
            for bay in dict.fromkeys([self._committed(lot, offset) for offset in done]):
                self._go_on(lot, bay)
        return committed

    def _release(self, attachment: Attachment, request: RequestNumber, operation: ParkingRelease) -> Result:
        lot = self._names.find(operation.path, Lot)
        if isinstance(lot, Failed):
            return lot
        if lot is not None:
            self._cursors.release(attachment, lot, TopicRelease(operation.path, GROUP))
            self._lots.drop_if_empty(operation.path, lot)
        return _DONE

    def _committed(self, lot: Lot, offset: int) -> Bay:
        bay, piece = lot.deliveries.pop(offset)
        self._names.get(bay.name)
        self._lots.let_go(lot, piece)
        piece.committed = True
        if piece.expired or piece.passed:
            self._forget(bay, piece)
        else:
            piece.timer = self._timers.set(self._entry.time_ms + piece.grace_ms, partial(self._never_came, bay, piece))
        return bay

    # --- calling -----------------------------------------------------------------------------------------------------------------

    def gates_moved(self) -> None:
        """At the end of an entry: somebody was granted a gate, or it may have room."""
        for gate, grants in self._entry.gates.take().items():
            for bay in sorted(self._lots.of_gate.get(gate, {}).values(), key=turn):
                lot = self._lots.changing(bay)
                self._pass(bay, grants)
                self._settle(lot, bay)

    def _pass(self, bay: Bay, grants: int) -> None:
        """So many were granted the gate: they count as those that were called first."""
        for piece in [piece for piece in bay.called.values() if not piece.passed][:grants]:
            piece.passed = True
            if piece.committed:
                self._unset_timer(piece)
                self._forget(bay, piece)

    def _go_on(self, lot: Lot, bay: Bay) -> None:
        """Call as many as the gate has room for; close a bay that nobody needs."""
        if bay.waiting:
            before, gate = lot.end, self._names.look_up(bay.gate)
            while bay.waiting and has_room(gate, bay):
                piece = bay.waiting.pop(0)
                self._unset_timer(piece)
                bay.called[piece.id] = piece
                bay.remember(piece)
                lot.deliver(bay, piece)
            if lot.end != before:
                self._tell(lot, bay.path)
        if not bay.pieces:
            self._lots.close(lot, bay)

    def _settle(self, lot: Lot, bay: Bay) -> None:
        self._go_on(lot, bay)
        self._lots.drop_if_empty(bay.path, lot)

    def _tell(self, lot: Lot, path: str) -> None:
        """There are new deliveries: the last of them stands for all."""
        if self._streams.by_name:
            self._streams.emit((Lot.kind, path), MessagePublished(lot.end - 1, None))

    def _never_came(self, bay: Bay, piece: Piece) -> None:
        lot = self._lots.changing(bay)
        piece.timer = None
        self._forget(bay, piece)
        self._settle(lot, bay)

    def _expired(self, bay: Bay, piece: Piece) -> None:
        lot = self._lots.changing(bay)
        piece.timer = None
        del bay.waiting[bay.place(piece)]
        piece.expired = True
        lot.deliver(bay, piece)
        self._tell(lot, bay.path)

    def _forget(self, bay: Bay, piece: Piece) -> None:
        """A piece whose message is let go of is gone."""
        del bay.pieces[piece.id]
        bay.called.pop(piece.id, None)

    def _take_out(self, lot: Lot, bay: Bay, piece: Piece) -> None:
        """Remove a piece, wherever it is."""
        self._unset_timer(piece)
        if piece.delivery is None:
            del bay.waiting[bay.place(piece)]
        elif not piece.committed:
            lot.withdraw(piece)
        if not piece.committed:
            self._lots.let_go(lot, piece)
        self._forget(bay, piece)

    def _set_patience(self, bay: Bay, piece: Piece, wait_ms: int | None) -> None:
        if wait_ms is not None:
            piece.timer = self._timers.set(self._entry.time_ms + wait_ms, partial(self._expired, bay, piece))

    def _unset_timer(self, piece: Piece) -> None:
        if piece.timer is not None:
            self._timers.cancel(piece.timer)
            piece.timer = None

    # --- what is refused ---------------------------------------------------------------------------------------------------------

    def _check_gate(self, path: str) -> Failed | None:
        gate = self._names.look_up(path)
        if gate is None or isinstance(gate, Lock | Semaphore):
            return refusals.check_path(path)
        return refusals.wrong_type(path, gate.kind)

    # --- duties of a resource ----------------------------------------------------------------------------------------------------

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        """What they parked stays."""
        for claim in cursors.claimed_paths(ended, self._cursors):
            self._end(claim)

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """A consumer is a process.  What it committed, and what it parked, stays."""
        self.attachments_ended([attachment], answer)

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        """A claim is given up; what was parked stays until it is unparked."""
        for claim in self._cursors.of_attachment(attachment):
            if claim.request == request:
                attachment.window.settle(request, answer)
                self._end(claim)
                return True
        return False

    def _end(self, claim: Claim) -> None:
        lot = self._names.get(claim.path)
        assert type(lot) is Lot, "a claim's lot exists as long as the claim"
        self._cursors.end(lot, claim)
        self._lots.drop_if_empty(claim.path, lot)

    def holdings(self, attachment: Attachment) -> int:
        return len(self._cursors.of_attachment(attachment))

    def state(self) -> list[Any]:
        return [state(self.row(path, lot)[0]) for path, lot in self._names.of_type(Lot)]

    @property
    def named(self) -> type[Lot]:
        return Lot

    def row(self, path: str, lot: Lot) -> tuple[LotRow, int]:
        return lot_row(path, lot, cursors.rows(lot))

    def restore(self, rows: msgspec.Raw) -> int:
        found: list[LotRow] = decode(_decode_lots, rows)
        for row in found:
            lot = self._lots.restored(row.path)
            lot.number, lot.end = row.number, row.end
            for number, *numbers in row.bins:
                lot.bins[number] = self._logs[number] = Bin(number, *numbers)
            for group in row.groups:
                self._cursors.restore(row.path, lot, group)
            self._names.restore(row.path, lot)
        return len(found)

    def restore_bays(self, rows: msgspec.Raw) -> int:
        found: list[BayRow] = decode(_decode_bays, rows)
        for row in found:
            bay, lot = restored_bay(row), self._lots.restored(row.path)
            for piece, each in zip(bay.pieces.values(), row.pieces, strict=True):
                if each.timer is not None:
                    on_due: Callable[[Bay, Piece], None] = self._expired if piece.delivery is None else self._never_came
                    piece.timer = self._timers.restore(each.timer, partial(on_due, bay, piece))
                if not piece.committed:
                    self._lots.count(lot, piece, 1)
                    if piece.delivery is not None:
                        lot.restore(bay, piece)
            lot.bays[bay.key] = bay
            self._lots.watch(bay)
            self._names.restore(bay.name, bay)
        return len(found)

    # --- looking -----------------------------------------------------------------------------------------------------------------

    @property
    def lots(self) -> Mapping[str, Lot]:
        """Every lot, by its path: only to look at."""
        return self._lots.by_path

    def bays(self) -> list[tuple[str, Bay]]:
        """Return every bay with its name, in order of names."""
        return self._names.of_type(Bay)

    def place(self, query: ParkingFetch) -> tuple[ParkingFetched, list[Placed]] | Failed:
        """Return the answer to a fetch without its deliveries, and these without their messages."""
        lot = check_fetch(query) or self._names.find(query.path, Lot)
        return lot if isinstance(lot, Failed) else placed(lot, query, self._entry.time_ms)

    def _fetch(self, query: ParkingFetch) -> ParkingFetched | Failed:
        found = self.place(query)
        return found if isinstance(found, Failed) else found[0]

    def _state(self, path: str) -> ParkingState | Failed:
        return self._info(ParkingInfo(path, keys_max=0))

    def _info(self, query: ParkingInfo) -> ParkingState | Failed:
        lot = self._names.find(query.path, Lot)
        return lot if isinstance(lot, Failed) else info(lot, query, self._entry.time_ms)

    def _list(self, query: ParkedList) -> ParkedListing | Failed:
        lot = self._names.find(query.path, Lot)
        return lot if isinstance(lot, Failed) else listing(lot, query, self._entry.time_ms)


class Bays:
    """The bays as resources of their own, so that a snapshot writes one at a time: nothing else is done to them by name."""

    __slots__ = ("_parking",)

    operations: Mapping[type[Any], OperationHandler] = {}
    queries: Mapping[type[Any], QueryHandler] = {}
    watched: Mapping[str, StateOf] = {}

    def __init__(self, parking: Parking) -> None:
        self._parking = parking

    def attachments_ended(self, ended: Sequence[Attachment], answer: Failed) -> None:
        """A piece belongs to nobody."""

    def actor_left(self, attachment: Attachment, answer: Failed) -> None:
        """As when it ends."""

    def withdraw(self, attachment: Attachment, request: RequestNumber, answer: Result) -> bool:
        return False

    def holdings(self, attachment: Attachment) -> int:
        return 0

    def state(self) -> list[Any]:
        return [state(bay_row(bay)[0]) for _, bay in self._parking.bays()]

    @property
    def named(self) -> type[Bay]:
        return Bay

    def row(self, path: str, bay: Bay) -> tuple[BayRow, int]:
        return bay_row(bay)

    def restore(self, rows: msgspec.Raw) -> int:
        return self._parking.restore_bays(rows)
