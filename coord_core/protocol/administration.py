"""What an operator asks of the cluster itself: who belongs to it and who leads it.

All of these may be asked again: a member is meant by its id, which is never used twice, so what was done already stays done.
"""

from typing import TypeAlias

import msgspec

from coord_core.types import NodeId


class _Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class RemoveMember(_Request, frozen=True, tag=1):
    """Take a node out of the cluster for good.  A leader hands over first.  Done where it is no member.

    Refused with `Unsafe` where those that would be left and were heard lately are no majority of them, unless `force`.
    """

    node_id: NodeId
    force: bool = False


class TransferLeadership(_Request, frozen=True, tag=2):
    """Hand leadership to a voter.  Done where it leads already."""

    #: 0: to whichever other voter has most of the log.
    node_id: NodeId


Administration: TypeAlias = RemoveMember | TransferLeadership
