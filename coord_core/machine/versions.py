"""The machine's version: how a new release changes what an entry does while the old one is still among the members.

Rules:
- What entries do, and all bounds, follow from the log alone.  So a release that does something else for the same entry does it only
  from an entry on that says so: `SetMachineVersion`.  Code that differs asks `CurrentEntry.version`, never which release it is.
- The version is part of the state.  It begins at VERSION_FIRST, stands in every snapshot, and only rises.
- The leader proposes a version when every member has said that it knows it, the learners too.  A node that meets one it does not
  know (an older release that was started again, or came back) stops before it applies the entry: it would go on as another machine.
- What a version brought stays in the code until no supported release writes an older one: old logs are applied as they were meant.

What each brought:

    1   the first
"""

from coord_core.errors import ReleaseTooOld

VERSION_FIRST = 1

#: The newest that this release knows.
VERSION_MAX = 1


def check_known(version: int, what: str) -> None:
    """Raise `ReleaseTooOld` where `what` needs a version of the machine that this release does not know."""
    if version > VERSION_MAX:
        message = f"{what} needs version {version} of the machine, this release knows up to {VERSION_MAX}: start a newer release"
        raise ReleaseTooOld(message, version=version, known=VERSION_MAX)
