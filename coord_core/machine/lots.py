"""The tables of parking lots: lots, bays and messages as they are made, counted and dropped.  What happens in them: `parking`.

Rule: whoever changes a bay or its lot has looked both up just before (`changing`, `open`), see `names`.
"""

from coord_core.machine import refusals
from coord_core.machine.bays import Bay, Bin, Lot, Piece
from coord_core.machine.bounds import (
    PARKED_BYTES_MAX,
    PARKED_BYTES_PER_LOT_MAX,
    PARKING_LOTS_MAX,
    PIECES_MAX,
    PIECES_PER_LOT_MAX,
)
from coord_core.machine.entry import CurrentEntry
from coord_core.machine.logs import Logs
from coord_core.machine.names import Names
from coord_core.machine.parked import claim_of, size_of
from coord_core.machine.streams import Streams
from coord_core.protocol.parking import Park
from coord_core.protocol.results import Failed
from coord_core.protocol.topics import TopicDeleted, TopicRecord
from coord_core.types import TopicNumber


class Lots:
    __slots__ = ("_entry", "_logs", "_names", "_streams", "by_path", "bytes", "of_gate", "pieces")

    def __init__(self, entry: CurrentEntry, names: Names, streams: Streams, logs: Logs) -> None:
        self._entry = entry
        self._names = names
        self._streams = streams
        self._logs = logs
        #: Every lot.
        self.by_path: dict[str, Lot] = {}
        #: The bays of each gate, by their names.
        self.of_gate: dict[str, dict[str, Bay]] = {}
        #: Of all lots: pieces with messages, and the bytes of these.
        self.pieces = 0
        self.bytes = 0

    def open(self, lot: Lot | None, bay: Bay | None, operation: Park) -> tuple[Lot, Bay] | Failed:
        """Return lot and bay of a piece, made where they are not there.  The lot was looked up last."""
        if lot is None:
            made = self.make(operation.path)
            if isinstance(made, Failed):
                return made
            lot = made
        if bay is not None:
            self._names.get(bay.name)
            return lot, bay
        bay = Bay(operation.path, operation.key, operation.gate, operation.permits)
        self._names.look_up(bay.name)
        fault = self._names.bind(bay.name, bay)
        if fault is not None:
            self.drop_if_empty(operation.path, lot)
            return fault
        lot.bays[bay.key] = bay
        self.watch(bay)
        return lot, bay

    def make(self, path: str) -> Lot | Failed:
        """Make a lot under the path looked up last, which is free."""
        if len(self.by_path) >= PARKING_LOTS_MAX:
            return refusals.over_limit("parking lots", PARKING_LOTS_MAX, len(self.by_path) + 1)
        lot = Lot(TopicNumber(self._entry.index))
        fault = self._names.bind(path, lot)
        if fault is not None:
            return fault
        self.by_path[path] = lot
        return lot

    def drop_if_empty(self, path: str, lot: Lot) -> None:
        if lot.bays or claim_of(lot) is not None:
            return
        assert not lot.bins, "a message is kept for a piece, and a piece is in a bay"
        self._names.look_up(path)
        self._names.drop(path)
        del self.by_path[path]
        if self._streams.by_name:
            self._streams.emit((Lot.kind, path), TopicDeleted(lot.number))

    def keep_message(self, lot: Lot, piece: Piece, operation: Park) -> None:
        entry, size = self._entry, size_of(operation)
        found = next(reversed(lot.bins.values()), None)
        if found is None or not found.has_room(size):
            found = Bin(TopicNumber(entry.index))
            lot.bins[found.number] = self._logs[found.number] = found
        piece.bin, piece.at, piece.size = found.number, found.add(size), size
        record = TopicRecord(piece.at, entry.index, entry.time_ms, operation.message, operation.id.encode())
        entry.records.append((found.number, record))
        self.count(lot, piece, 1)

    def let_go(self, lot: Lot, piece: Piece) -> None:
        """Nobody needs a piece's message any more."""
        found = lot.bins[piece.bin]
        found.left -= 1
        self.count(lot, piece, -1)
        if not found.left:
            del lot.bins[found.number], self._logs[found.number]
            self._entry.trimmed.append((found.number, None))

    def count(self, lot: Lot, piece: Piece, by: int) -> None:
        lot.pieces += by
        lot.bytes += by * piece.size
        self.pieces += by
        self.bytes += by * piece.size

    def watch(self, bay: Bay) -> None:
        """A bay waits for its gate."""
        self.of_gate.setdefault(bay.gate, {})[bay.name] = bay

    def changing(self, bay: Bay) -> Lot:
        """Look up a bay and its lot, which are about to change."""
        lot = self._names.get(bay.path)
        assert type(lot) is Lot, "a bay's lot exists as long as the bay"
        self._names.get(bay.name)
        return lot

    def restored(self, path: str) -> Lot:
        """Return a lot on its way out of a snapshot: its bays may come before itself."""
        lot = self.by_path.get(path)
        if lot is None:
            lot = self.by_path[path] = Lot(TopicNumber(0))
        return lot

    def check_room(self, lot: Lot | None, size: int, pieces: int = 1) -> Failed | None:
        in_lot, of_lot = (0, 0) if lot is None else (lot.pieces, lot.bytes)
        for what, limit, value in (
            ("pieces of a lot", PIECES_PER_LOT_MAX, in_lot + pieces),
            ("pieces of all lots", PIECES_MAX, self.pieces + pieces),
            ("bytes of a lot's messages", PARKED_BYTES_PER_LOT_MAX, of_lot + size),
            ("bytes of all lots' messages", PARKED_BYTES_MAX, self.bytes + size),
        ):
            if value > limit:
                return refusals.over_limit(what, limit, value)
        return None

    def close(self, lot: Lot, bay: Bay) -> None:
        """Nothing is left in a bay."""
        self._names.look_up(bay.name)
        self._names.drop(bay.name)
        del lot.bays[bay.key]
        bays = self.of_gate[bay.gate]
        del bays[bay.name]
        if not bays:
            del self.of_gate[bay.gate]
