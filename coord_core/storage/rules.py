"""What every storage holds to, whatever its disk: where a founder begins, and which batches fit a log."""

from coord_core.raft.messages import HardState
from coord_core.storage.api import Batch, Bootstrap
from coord_core.storage.snapshots import Publish
from coord_core.types import LogIndex, NodeId


def founding_hard_state(bootstrap: Bootstrap) -> HardState:
    """Where every founder begins: in the founding snapshot's term, with that snapshot committed and no vote given."""
    return HardState(bootstrap.snapshot.term, NodeId(0), bootstrap.snapshot.index)


def misfit(batch: Batch, snapshot_index: LogIndex, last_index: LogIndex) -> str | None:
    """Say why the batch's entries cannot follow (or replace the end of) a log that ends at `last_index`; None where they can.

    Consensus never asks for such a thing.  If it did, storing it would make the log unreadable at the next start.
    """
    first, last = batch.entries[0].index, batch.entries[-1].index
    if first > last_index + 1:
        return f"entries {first}..{last} would leave a gap after {last_index}"
    if first <= snapshot_index:
        return f"entries {first}..{last} would replace what the snapshot at {snapshot_index} covers"
    if last - first + 1 != len(batch.entries):
        return f"{len(batch.entries)} entries numbered {first}..{last} are not contiguous"
    return None


def misfit_of_snapshot(publish: Publish, chunks: int, size: int, log_index: LogIndex, last_index: LogIndex) -> str | None:
    """Say why a snapshot of which so much is staged cannot be published over such a log; None where it can."""
    info, index = publish.info, publish.info.metadata.index
    if (chunks, size) != (info.chunks, info.size):
        return f"the snapshot at {index} has {info.chunks} chunks of {info.size} bytes, {chunks} of {size} bytes are staged"
    if publish.replaces_log:
        if publish.log_index != index or index <= log_index:
            return f"the snapshot at {index} cannot replace a log that begins behind {log_index}"
    elif not log_index <= publish.log_index <= index <= last_index:
        return f"the snapshot at {index} cannot trim the log {log_index}..{last_index} up to {publish.log_index}"
    return None
