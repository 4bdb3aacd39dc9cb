"""Gates: locks and semaphores that somebody waits for who does not stand in their queues.

A lock or a semaphore tells here that it was granted, or that it may have room; whoever waits outside looks at the end of the entry,
when all that the entry does to it is done.  It costs one look at an empty dict where nobody waits.
"""

from collections.abc import Collection


class Gates:
    __slots__ = ("due", "watched")

    def __init__(self) -> None:
        #: The paths that somebody waits for; whoever does puts his own table here.
        self.watched: Collection[str] = ()
        #: What moved in the present entry: how often it was granted.
        self.due: dict[str, int] = {}

    def granted(self, path: str) -> None:
        if path in self.watched:
            self.due[path] = self.due.get(path, 0) + 1

    def has_room(self, path: str) -> None:
        """It may have: who waits looks."""
        if path in self.watched:
            self.due.setdefault(path, 0)

    def take(self) -> dict[str, int]:
        """Return what has moved; from here on nothing has."""
        due, self.due = self.due, {}
        return due
