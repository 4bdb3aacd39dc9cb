"""Why consensus turns a request down.  Nothing was appended: trying again, here or elsewhere, is safe."""

from coord_core.errors import RetryableError


class Refused(RetryableError):
    """Root of the refusals of this package; `details` carries the facts."""


class NotLeaderError(Refused):
    """This node does not lead.  `details["leader_id"]` is the leader where known, else 0."""


class ProposalBusy(Refused):
    """Too much is waiting to be committed.  `details["uncommitted_bytes"]` says how much."""


class Transferring(Refused):
    """Leadership is being handed over.  `details["to"]` names the node; try again in an election timeout at most."""


class ReadsBusy(Refused):
    """Too many reads wait for a quorum.  `details["waiting"]` says how many."""


class MembershipRefused(Refused):
    """The change is not possible now, or not from this configuration; the message says why."""


class TransferRefused(Refused):
    """The node named cannot take over: unknown, or a learner."""
