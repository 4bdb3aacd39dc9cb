"""A machine's state as of one index, written down while the machine goes on.

A million locks take most of a second to write, longer than an election timeout.  So it is done in slices, and what is about to
change before its turn has come is written first: its row always says what it was at the snapshot's index.  Rules that make it
right:

- Who changes a resource has got it from `Names.find` or `Names.get` in the same entry, and these tell `before_name`.
- Who changes a window has told `before_attachment` (`Machine._call`, `CurrentEntry.reply`).
- What was written bears the snapshot's number.  What came into being after its index bears it too, or shows its age by its own
  number, for a name that was dropped and bound again is listed.
- Sessions do not change, they only end; that takes them and their attachments out of the tables and leaves them as they were.

The sections have an order (see `stream`), so the row of something that changes before its section has come is kept aside.

No time is read here: a slice is a number of items, and how long it may take is the driver's business.
"""

from typing import Any, TypeAlias

from coord_core.machine.names import Names
from coord_core.machine.resources import Registry
from coord_core.machine.sessions import ATTACHMENT, SESSION, Attachment, Sessions
from coord_core.machine.stream import Cutter
from coord_core.types import LogIndex

#: Kind, row, and about how many bytes it has.
_Row: TypeAlias = tuple[str, Any, int]

#: A row counts as one item and one more for each so many bytes: a lock has a queue, an attachment has answers.
_ITEM_BYTES = 256


#: The order of a snapshot's sections.
_SESSIONS, _ATTACHMENTS, _NAMES, _END = range(4)


class Snapshot:
    """One snapshot in the making.  Made by `Machine.begin_snapshot`; `step` it until it is `done`, or abandon it there."""

    def __init__(self, number: int, index: LogIndex, cutter: Cutter, sessions: Sessions, names: Names, registry: Registry) -> None:
        #: No other snapshot of this machine has it, not even one at the same index.
        self.number = number
        self.index = index
        self._names = names
        self._registry = registry
        self._cutter = cutter
        # What was there when it began, the next one last.  Listing a million names takes about 10 ms: the longest step of all.
        self._sessions = list(sessions)
        self._attachments = sessions.attachments()
        self._paths = names.paths()
        for items in (self._sessions, self._attachments, self._paths):
            items.reverse()
        self._section = _SESSIONS
        # Rows of sections to come.
        self._aside: dict[int, list[_Row]] = {_ATTACHMENTS: [], _NAMES: []}
        self._aside_bytes = 0
        #: All chunks were given out.
        self.done = False

    @property
    def pending_bytes(self) -> int:
        """Bytes written down and not given out, about: what changes is written whether or not anybody takes it."""
        return self._cutter.pending_bytes + self._aside_bytes

    def step(self, budget: int) -> list[bytes]:
        """Write about `budget` items more; return the chunks that became full, the last one too when it is done."""
        while budget > 0 and not self.done:
            if self._section == _SESSIONS:
                budget -= self._write_session()
            elif self._section == _ATTACHMENTS:
                budget -= self._write_attachment()
            elif self._section == _NAMES:
                budget -= self._write_name()
            else:
                self._cutter.finish()
                self.done = True
        return self._cutter.take(rest=self.done)

    # --- what is about to change -------------------------------------------------------------------------------------------------

    def before_attachment(self, attachment: Attachment) -> None:
        """An attachment's window is about to change."""
        if attachment.written != self.number and attachment.id <= self.index:
            attachment.written = self.number
            self._add(_ATTACHMENTS, (ATTACHMENT, *attachment.row()))

    def before_name(self, path: str) -> None:
        """Whatever is bound to a path is about to change, or its name to be bound or dropped."""
        resource = self._names.bound(path)
        if resource is not None and resource.written != self.number:
            resource.written = self.number
            self._add(_NAMES, self._registry.row(path, resource))

    # --- in turn -----------------------------------------------------------------------------------------------------------------

    def _write_session(self) -> int:
        if not self._sessions:
            return self._next_section()
        return self._add(_SESSIONS, (SESSION, *self._sessions.pop().row()))

    def _write_attachment(self) -> int:
        if not self._attachments:
            return self._next_section()
        attachment = self._attachments.pop()
        if attachment.written == self.number:
            return 1
        attachment.written = self.number
        return self._add(_ATTACHMENTS, (ATTACHMENT, *attachment.row()))

    def _write_name(self) -> int:
        if not self._paths:
            return self._next_section()
        path = self._paths.pop()
        resource = self._names.bound(path)
        if resource is None or resource.written == self.number:
            # It has changed since.
            return 1
        resource.written = self.number
        return self._add(_NAMES, self._registry.row(path, resource))

    def _next_section(self) -> int:
        self._cutter.end_section()
        self._section += 1
        for row in self._aside.pop(self._section, ()):
            self._aside_bytes -= row[2]
            self._cutter.add(*row)
        return 1

    def _add(self, section: int, row: _Row) -> int:
        size = row[2]
        if section == self._section:
            self._cutter.add(*row)
        else:
            self._aside[section].append(row)
            self._aside_bytes += size
        return 1 + size // _ITEM_BYTES
