"""Which process a client belongs to.

A forked child has its parent's objects, but not its threads, and its sockets are the parent's too: one byte written there, or one
descriptor taken out of the shared epoll set, harms the parent.  So a child leaves all it inherited untouched: clients compare the
generation in which they were made and refuse, and the running loops are kept referenced for ever, so that no destructor runs.
"""

import os
from typing import Any

from coord_core.errors import UsedAfterFork

_generation = 0
#: Loops, transports and threads in use.  In a child nothing ever leaves it again.
_alive: list[Any] = []


def generation() -> int:
    """Return a number that differs between a process and its forked child."""
    return _generation


def check(born: int) -> None:
    """Raise `UsedAfterFork` where `born` is not this process's generation."""
    if born != _generation:
        raise UsedAfterFork("this client was made before a fork: it belongs to the parent; connect again in the child")


def keep(thing: Any) -> None:
    """Keep a reference, in this process until `let_go`, in a child for ever."""
    _alive.append(thing)


def let_go(thing: Any, born: int) -> None:
    if born == _generation and thing in _alive:
        _alive.remove(thing)


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)
