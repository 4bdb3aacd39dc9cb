"""Exit codes: what a script may rely on, and which error gets which.

A command run under `coord lock` or `coord dev` exits with its own code, or 128 + the number of the signal that killed it.
"""

import enum

from coord_core import errors


class Exit(enum.IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    #: No node answered, or those that did have no quorum.
    UNAVAILABLE = 3
    AUTH = 4
    NOT_FOUND = 5
    CONFLICT = 6
    #: Refused because it could do harm; `--force` does it all the same.
    UNSAFE = 7
    #: EX_DATAERR of sysexits.h: a node must not run on its data directory; starting it again does not help.
    UNUSABLE_DATA = 65
    #: EX_TEMPFAIL of sysexits.h: the lock was busy, try again later.
    NOT_ACQUIRED = 75
    #: EX_PROTOCOL's number, unused by shells: the lease ended while the command ran.
    LEASE_LOST = 76
    #: As a shell has it: found, but it cannot be executed.
    CANNOT_EXECUTE = 126
    COMMAND_NOT_FOUND = 127
    INTERRUPTED = 130


#: The first class that fits decides, so a class comes before its base.
_BY_ERROR: tuple[tuple[type[errors.CoordError], Exit], ...] = (
    (errors.Busy, Exit.FAILED),
    (errors.RetryableError, Exit.UNAVAILABLE),
    (errors.AuthenticationFailed, Exit.AUTH),
    (errors.LostError, Exit.LEASE_LOST),
    (errors.InvalidUrl, Exit.USAGE),
    (errors.InvalidConfig, Exit.USAGE),
    (errors.InvalidRequest, Exit.USAGE),
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.WrongType, Exit.CONFLICT),
    (errors.NotHolder, Exit.CONFLICT),
    (errors.WrongCluster, Exit.CONFLICT),
    (errors.DataDirInUse, Exit.CONFLICT),
    (errors.Unsafe, Exit.UNSAFE),
    (errors.StorageCorrupt, Exit.UNUSABLE_DATA),
    (errors.NodeSuspect, Exit.UNUSABLE_DATA),
    (errors.NodeRemoved, Exit.UNUSABLE_DATA),
)

#: What to do next, for errors whose own message cannot know it.
_HINTS: tuple[tuple[type[errors.CoordError], str], ...] = (
    (errors.Unavailable, "`coord status` shows which nodes answer"),
    (errors.NotLeader, "try again: the cluster is electing a leader"),
    (errors.Busy, "wait a moment and try again"),
    (errors.AuthenticationFailed, "pass the cluster's token with --token-file or COORD_TOKEN_FILE"),
    (errors.InvalidUrl, "a URL looks like coord://host1:7400,host2:7400/namespace"),
)


def exit_of(error: errors.CoordError) -> Exit:
    """Return the exit code for `error`; `FAILED` where none is more exact."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return Exit.FAILED


def hint_of(error: errors.CoordError) -> str:
    """Return what the user can do about `error`, or an empty string."""
    if error.details.get("part") == "options":
        return ""  # an option out of bounds says enough, and may come from a flag
    for kind, hint in _HINTS:
        if isinstance(error, kind):
            return hint
    return ""


class CommandFailed(Exception):
    """Ends the command with `code`; `message` is one line for stderr, empty where enough was said."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
