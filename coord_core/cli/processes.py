"""What this room needs of the kernel: children that die with their parent, and the terminal's foreground group."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send `signum` to this process when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG).

    Call it in the child, directly after fork; `parent` is the pid that forked.  The setting survives exec.  Linux only: elsewhere
    this does nothing.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signum)


def signal_group(group: int, signum: int) -> bool:
    """Send a signal to a process group; False where none of it is left."""
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    except PermissionError:  # what is left has changed its user
        return False
    return True


def exit_code_of(wait_status: int) -> int:
    """Return the exit code that a shell would give: the process's own, or 128 + the number of the signal that ended it."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code
