"""What every storage holds to, whatever its disk: where a founder begins, and which batches fit a log."""

from coord_core.raft.messages import HardState
from coord_core.storage.api import Batch, Bootstrap
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
        return f"entries {first}..{last} would replace the snapshot at {snapshot_index}"
    if last - first + 1 != len(batch.entries):
        return f"{len(batch.entries)} entries numbered {first}..{last} are not contiguous"
    return None
