"""The two bounded queues in front of a replica.

*Control* holds what keeps the cluster alive and what gives things back: consensus messages, keep-alives, releases, cancellations,
closes.  *Commands* holds everything else.  Control is drained first and wholly; commands up to a turn's worth.  At its bound, the
command lane refuses with Busy and the control lane too, except that a consensus message is dropped (the protocol repeats it).
"""

from collections import deque
from dataclasses import dataclass

from coord_core.protocol.commands import Call, CloseAttachment, CloseSession, Command
from coord_core.protocol.operations import FREEING
from coord_core.replica.pending import Origin


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of the lanes of one node."""

    control_requests_max: int = 65_536
    peer_messages_max: int = 16_384
    commands_max: int = 16_384
    command_bytes_max: int = 64 * 1024 * 1024
    #: What one turn takes from the command lane, so that a turn stays short.
    turn_commands_max: int = 2_048
    turn_bytes_max: int = 2 * 1024 * 1024


def is_control(command: Command) -> bool:
    """Whether a command frees something, so that it must get through when others may not."""
    kind = type(command)
    if kind is Call:
        return type(command.operation) in FREEING  # type: ignore[union-attr]
    return kind is CloseSession or kind is CloseAttachment


@dataclass(slots=True)
class Proposal:
    """A client's command on its way into the log.  Not frozen: that would double the cost of making one, in the hottest path."""

    origin: Origin
    command: Command
    raw: bytes


class CommandLane:
    """First in, first out, bounded in number and bytes."""

    __slots__ = ("_bytes", "_bytes_max", "_most", "_queue")

    def __init__(self, most: int, bytes_max: int) -> None:
        self._queue: deque[Proposal] = deque()
        self._bytes = 0
        self._most = most
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, proposal: Proposal) -> bool:
        """Queue it; False where the lane is full."""
        size = len(proposal.raw)
        if len(self._queue) >= self._most or self._bytes + size > self._bytes_max:
            return False
        self._queue.append(proposal)
        self._bytes += size
        return True

    def take(self, most: int, bytes_max: int) -> list[Proposal]:
        """Take from the front, at least one where there is any."""
        taken: list[Proposal] = []
        size = 0
        queue = self._queue
        while queue and len(taken) < most:
            size += len(queue[0].raw)
            if taken and size > bytes_max:
                break
            taken.append(queue.popleft())
        self._bytes -= sum(len(proposal.raw) for proposal in taken)
        return taken

    def put_back(self, proposals: list[Proposal]) -> None:
        """Return what could not be proposed to the front, in order."""
        self._queue.extendleft(reversed(proposals))
        self._bytes += sum(len(proposal.raw) for proposal in proposals)
