"""A process that uses an embedded node and does what it is told.

    python user.py URL

Reads lines of Python, with `client` and the functions below in their names; says what each is worth, or what it raised.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import coord_core


def in_child(work: Callable[[], object]) -> str:
    """Fork; return what `work` returned there, or the name of what it raised, when the child has ended."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, _outcome(work).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    return said


def leave_child(work: Callable[[], object]) -> tuple[int, str]:
    """Fork; return the child's pid and what `work` returned there.  The child stays until it is killed."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, _outcome(work).encode())
        while True:
            signal.pause()
    os.close(writing)
    return child, os.read(reading, 1000).decode()


def _outcome(work: Callable[[], object]) -> str:
    signal.alarm(60)  # a child that hangs ends by itself
    try:
        return repr(work())
    except Exception as error:  # noqa: BLE001 - told to the test
        return type(error).__name__


def main(url: str) -> None:
    names: dict[str, Any] = {"client": coord_core.connect(url), "url": url}
    names |= {"connect": coord_core.connect, "in_child": in_child, "leave_child": leave_child}
    print("ready", flush=True)
    for line in sys.stdin:
        *before, last = line.strip().split("; ")
        try:
            for statement in before:
                exec(statement, names)
            said = repr(eval(last, names))
        except Exception as error:  # noqa: BLE001 - told to the test
            traceback.print_exc()
            said = f"raised {type(error).__name__}: {error}"
        print(said.replace("\n", " "), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
