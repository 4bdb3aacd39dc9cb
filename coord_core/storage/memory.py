"""A storage without a disk, for tests and the simulator.

It keeps the whole contract of `api` except surviving its process: what `write` took is there until the object goes.  Lost and torn
writes are the simulator's business, which wraps it.
"""

from bisect import bisect_left
from operator import attrgetter

from coord_core.errors import StorageFailed
from coord_core.protocol.topics import TopicRecord
from coord_core.raft.messages import Entry, HardState
from coord_core.storage.api import Batch, Bootstrap, Restored
from coord_core.storage.records import Held, take
from coord_core.storage.rules import founding_hard_state, misfit, misfit_of_snapshot
from coord_core.storage.snapshots import Chunk, Publish, Staging, StoredSnapshot
from coord_core.types import LogIndex, Term, TopicNumber

_offset = attrgetter("offset")


class MemoryStorage:
    """Durable for as long as the object lives."""

    def __init__(self) -> None:
        self._bootstrap: Bootstrap | None = None
        self._hard_state = HardState()
        #: Where the log begins; `_entries[i]` has index `_log_index + 1 + i`.
        self._log_index = LogIndex(0)
        self._log_term = Term(0)
        self._entries: list[Entry] = []
        self._snapshot: Publish | None = None
        #: Chunks in order of their seq, by staging.
        self._staged: dict[Staging, list[Chunk]] = {}
        #: Of topics, in order of their offsets.
        self._records: dict[TopicNumber, list[TopicRecord]] = {}
        self._records_index = LogIndex(0)
        self._failure: StorageFailed | None = None

    def load(self) -> Restored | None:
        self._check_usable()
        if self._bootstrap is None:
            return None
        snapshot = None
        if self._snapshot is not None:
            staging = self._snapshot.staging
            self._staged = {staging: self._staged[staging]}
            chunks = [chunk.data for chunk in self._staged[staging]]
            snapshot = StoredSnapshot(staging, self._snapshot.info, self._log_index, self._log_term, chunks)
        else:
            self._staged.clear()
        return Restored(
            self._bootstrap,
            self._hard_state,
            list(self._entries),
            snapshot,
            Staging(max(self._staged, default=0) + 1),
            self._records_index,
            {topic: Held(records[0].offset, records[-1].offset + 1) for topic, records in self._records.items()},
        )

    def form(self, bootstrap: Bootstrap) -> None:
        self._check_usable()
        if self._bootstrap is not None:
            raise StorageFailed(f"node {self._bootstrap.identity.name} is formed already")
        self._bootstrap = bootstrap
        self._hard_state = founding_hard_state(bootstrap)
        self._log_index, self._log_term = bootstrap.snapshot.index, bootstrap.snapshot.term

    def write(self, batch: Batch) -> None:
        self._check_usable()
        if self._bootstrap is None:
            raise self._poison("the node has not been formed")
        fault = self._fault(batch)
        if fault is not None:
            raise self._poison(fault)
        self._take_chunks(batch)
        if batch.publish is not None:
            self._publish(batch.publish)
        if batch.entries:
            self._entries[batch.entries[0].index - self._log_index - 1 :] = batch.entries
        if batch.hard_state is not None:
            self._hard_state = batch.hard_state
        self._take_records(batch)

    def read_chunk(self, staging: Staging, seq: int) -> Chunk | None:
        self._check_usable()
        chunks = self._staged.get(staging, [])
        return chunks[seq] if seq < len(chunks) else None

    def read_records(self, topic: TopicNumber, offset: int, records_max: int, bytes_max: int) -> list[TopicRecord]:
        self._check_usable()
        records = self._records.get(topic, [])
        at = bisect_left(records, offset, key=_offset)
        return take(records[at : at + records_max], records_max, bytes_max)

    def last_index(self) -> LogIndex:
        self._check_usable()
        if self._bootstrap is None:
            raise StorageFailed("the node has not been formed")
        return self._last_index()

    def close(self) -> None:
        self._failure = self._failure or StorageFailed("the storage is closed")

    def clone(self) -> "MemoryStorage":
        """Return an open storage with the same content, as a restarted node would find it.  Entries are shared, not copied."""
        other = MemoryStorage()
        other._bootstrap = self._bootstrap
        other._hard_state = self._hard_state
        other._log_index, other._log_term = self._log_index, self._log_term
        other._entries = self._entries.copy()
        other._snapshot = self._snapshot
        other._staged = {staging: chunks.copy() for staging, chunks in self._staged.items()}
        other._records = {topic: records.copy() for topic, records in self._records.items()}
        other._records_index = self._records_index
        return other

    # --- facts for the simulator -------------------------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def entries(self) -> list[Entry]:
        """What is kept of the log, behind `log_index`."""
        return self._entries

    @property
    def log_index(self) -> LogIndex:
        return self._log_index

    @property
    def log_term(self) -> Term:
        return self._log_term

    # --- inside ------------------------------------------------------------------------------------------------------------------

    def _fault(self, batch: Batch) -> str | None:
        """Say what of the batch does not fit, before any of it is taken."""
        snapshot_index, last_index, publish = self._snapshot_index(), self._last_index(), batch.publish
        sizes = {staging: [len(chunk.data) for chunk in chunks] for staging, chunks in self._staged.items()} if batch.stage else {}
        for chunk in batch.stage:
            before = sizes.setdefault(chunk.staging, [])
            if chunk.seq != len(before):
                return f"chunk {chunk.seq} of staging {chunk.staging} does not follow the {len(before)} that are there"
            before.append(len(chunk.data))
        if publish is not None:
            staged = sizes.get(publish.staging) or [len(chunk.data) for chunk in self._staged.get(publish.staging, ())]
            fault = misfit_of_snapshot(publish, len(staged), sum(staged), self._log_index, last_index)
            if fault is not None:
                return fault
            reached = max(self._records_index, batch.records_index or 0)
            if 0 < reached < publish.info.metadata.index:
                return f"the records up to the snapshot at {publish.info.metadata.index} are stored up to {reached} only"
            snapshot_index = publish.info.metadata.index
            last_index = publish.log_index if publish.replaces_log else last_index
        published = publish or self._snapshot
        if published is not None and published.staging in batch.discard:
            return f"staging {published.staging} is the node's snapshot"
        return misfit(batch, snapshot_index, last_index) if batch.entries else None

    def _take_chunks(self, batch: Batch) -> None:
        for chunk in batch.stage:
            self._staged.setdefault(chunk.staging, []).append(chunk)
        for staging in batch.discard:
            self._staged.pop(staging, None)

    def _take_records(self, batch: Batch) -> None:
        for topic, record in batch.records:
            records = self._records.setdefault(topic, [])
            if not records or record.offset > records[-1].offset:
                records.append(record)
        if batch.records_index is not None and (batch.records or batch.publish is not None):
            self._records_index = max(self._records_index, batch.records_index)
        for topic, below in batch.trims:
            left = [] if below is None else [record for record in self._records.get(topic, ()) if record.offset >= below]
            self._records.pop(topic, None)
            if left:
                self._records[topic] = left

    def _publish(self, publish: Publish) -> None:
        self._entries = [] if publish.replaces_log else self._entries[publish.log_index - self._log_index :]
        self._log_index, self._log_term = publish.log_index, publish.log_term
        self._snapshot = publish

    def _snapshot_index(self) -> LogIndex:
        return self._log_index if self._snapshot is None else self._snapshot.info.metadata.index

    def _last_index(self) -> LogIndex:
        return LogIndex(self._log_index + len(self._entries))

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _poison(self, message: str) -> StorageFailed:
        self._failure = StorageFailed(message)
        return self._failure
