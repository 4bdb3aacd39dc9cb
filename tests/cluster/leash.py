"""`python -m tests.cluster.leash PARENT COMMAND...`: becomes COMMAND, which the kernel kills when the process PARENT ends.

Nodes run in process groups and namespaces of their own; a test that is itself killed must not leave them behind.  A program of its
own rather than a function between fork and exec, because the parent has threads.
"""

import os
import sys
from collections.abc import Sequence

from coord_core.cli.processes import die_with_parent


def on_leash(command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` for as long as this process lives.  Start it from the main thread: the kernel
    takes the end of the thread that started it for the end of the parent.
    """
    return [sys.executable, "-m", "tests.cluster.leash", str(os.getpid()), *command]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
