"""A machine's state as of one index, written down while the machine goes on.

A million locks take most of a second to write, longer than an election timeout.  So it is done in slices, and what is about to
change before its turn has come is written first: its row always says what it was at the snapshot's index.  To list all that there
is would take too long as well, so that is done a part at a time.  Rules that make it right, whatever comes and goes meanwhile:

- Who changes a resource has got it from `Names.find` or `Names.get` in the same entry, and these tell `before_change`.
- Who changes a window, or ends an attachment, has told `before_attachment` (`Machine._call`, `Machine._before_end`,
  `CurrentEntry.reply`).
- What was written bears the snapshot's number.  What came into being after its index bears it too (`Names.bind`), or shows its age
  by its own number.  So what a part lists too much is passed over, and what it lacks was written when it went.
- Records of streams do not change: they are listed when the snapshot begins.
- Sessions do not change, they only end, and that leaves them as they were.  They are listed when the snapshot begins.

The sections have an order (see `stream`), so the row of something that changes before its section has come is kept aside.

No time is read here: a slice is a number of items, and how long it may take is the driver's business.
"""

from typing import Any, TypeAlias

from coord_core.machine.names import Named, Names
from coord_core.machine.resources import Registry
from coord_core.machine.sessions import ATTACHMENT, SESSION, Attachment, Sessions
from coord_core.machine.stream import Cutter
from coord_core.machine.streams import RECORD, Streams, record_row
from coord_core.types import LogIndex

#: Kind, row, and about how many bytes it has.
_Row: TypeAlias = tuple[str, Any, int]

#: A row counts as one item and one more for each so many bytes: a lock has a queue, an attachment has answers.
_ITEM_BYTES = 256

#: So many names are listed in the time that writing one takes.
_LISTED_AN_ITEM = 64

#: The order of a snapshot's sections.
_SESSIONS, _ATTACHMENTS, _NAMES, _RECORDS, _END = range(5)


class Snapshot:
    """One snapshot in the making.  Made by `Machine.begin_snapshot`; `step` it until it is `done`, or abandon it there."""

    def __init__(
        self,
        number: int,
        index: LogIndex,
        cutter: Cutter,
        sessions: Sessions,
        names: Names,
        registry: Registry,
        streams: Streams,
    ) -> None:
        #: No other snapshot of this machine has it, not even one at the same index.
        self.number = number
        self.index = index
        self._registry = registry
        self._cutter = cutter
        self._section = _SESSIONS
        # Those that there were when it began, and how many of them this section is done with.
        self._sessions = list(sessions)
        self._sessions_done = 0
        # The attachments of the session at hand, the next one last.
        self._attachments: list[Attachment] = []
        # The shard of names at hand, its paths, and the shards to come, the next one last.
        self._shard: dict[str, Named] = {}
        self._paths: list[str] = []
        self._shards = list(reversed(names.shards()))
        # Records of streams do not change: those that there were when it began, the next one last.
        self._records = streams.records()
        self._records.reverse()
        # Rows of sections to come, and what is left of them when their section has come.
        self._aside: dict[int, list[_Row]] = {_SESSIONS: [], _ATTACHMENTS: [], _NAMES: [], _RECORDS: []}
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
            if self._section == _END:
                self._cutter.finish()
                self.done = True
            elif self._aside[self._section]:
                budget -= self._write_aside()
            elif self._section == _SESSIONS:
                budget -= self._write_session()
            elif self._section == _ATTACHMENTS:
                budget -= self._write_attachment()
            elif self._section == _NAMES:
                budget -= self._write_name()
            else:
                budget -= self._write_record()
        return self._cutter.take(rest=self.done)

    # --- what is about to change -------------------------------------------------------------------------------------------------

    def before_attachment(self, attachment: Attachment) -> None:
        """An attachment's window is about to change, or the attachment to end."""
        if attachment.written != self.number and attachment.id <= self.index:
            attachment.written = self.number
            self._add(_ATTACHMENTS, (ATTACHMENT, *attachment.row()))

    def before_change(self, path: str, resource: Named) -> None:
        """What is bound to a path is about to change, or its name to be dropped."""
        if resource.written != self.number:
            resource.written = self.number
            self._add(_NAMES, self._registry.row(path, resource))

    # --- in turn -----------------------------------------------------------------------------------------------------------------

    def _write_session(self) -> int:
        if self._sessions_done == len(self._sessions):
            return self._next_section()
        session = self._sessions[self._sessions_done]
        self._sessions_done += 1
        return self._add(_SESSIONS, (SESSION, *session.row()))

    def _write_attachment(self) -> int:
        if not self._attachments:
            return self._list_attachments()
        attachment = self._attachments.pop()
        if attachment.written == self.number or attachment.id > self.index:
            return 1
        attachment.written = self.number
        return self._add(_ATTACHMENTS, (ATTACHMENT, *attachment.row()))

    def _list_attachments(self) -> int:
        if self._sessions_done == len(self._sessions):
            self._sessions = []
            return self._next_section()
        # Of a session that has ended there are none: they were written before.
        self._attachments = list(reversed(self._sessions[self._sessions_done].attachments.values()))
        self._sessions_done += 1
        return 1

    def _write_name(self) -> int:
        if not self._paths:
            return self._list_names()
        path = self._paths.pop()
        resource = self._shard.get(path)
        if resource is None or resource.written == self.number:
            # It went, or has changed since.
            return 1
        resource.written = self.number
        return self._add(_NAMES, self._registry.row(path, resource))

    def _list_names(self) -> int:
        while self._shards and not self._paths:
            self._shard = self._shards.pop()
            self._paths = list(self._shard)
        if not self._paths:
            return self._next_section()
        return 1 + len(self._paths) // _LISTED_AN_ITEM

    def _write_record(self) -> int:
        if not self._records:
            return self._next_section()
        return self._add(_RECORDS, (RECORD, *record_row(self._records.pop())))

    def _write_aside(self) -> int:
        row = self._aside[self._section].pop()
        self._aside_bytes -= row[2]
        return self._add(self._section, row)

    def _next_section(self) -> int:
        self._cutter.end_section()
        self._section += 1
        self._sessions_done = 0
        return 1

    def _add(self, section: int, row: _Row) -> int:
        size = row[2]
        if section == self._section:
            self._cutter.add(*row)
        else:
            self._aside[section].append(row)
            self._aside_bytes += size
        return 1 + size // _ITEM_BYTES
