"""What a log entry's bytes are: the leader's cluster-time stamp, then the command as the client encoded it."""

from coord_core.errors import ProtocolError, ReleaseTooOld
from coord_core.protocol.commands import Command
from coord_core.wire.codec import decode_command

STAMP_BYTES = 8


def stamp(time_ms: int) -> bytes:
    """The prefix that carries cluster time; the command's bytes follow it unchanged."""
    return time_ms.to_bytes(STAMP_BYTES, "big")


def unstamp(data: bytes) -> tuple[int, Command]:
    """Split an entry.  Raises `ReleaseTooOld` where this code does not know the command: the node must stop, not skip it.

    A leader checks what clients send before it proposes it, and storage checks sums: so it is not damage, but a newer release's.
    """
    try:
        command = decode_command(data[STAMP_BYTES:])
    except ProtocolError as error:
        raise ReleaseTooOld(f"the log has a command that this release does not know, start a newer release: {error}") from error
    return int.from_bytes(data[:STAMP_BYTES], "big"), command


def time_of(data: bytes) -> int:
    return int.from_bytes(data[:STAMP_BYTES], "big")
