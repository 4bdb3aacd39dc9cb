"""The clock of all deadlines in the client: seconds that also pass while the machine sleeps.

CLOCK_MONOTONIC stands still while a laptop is shut or a virtual machine paused; a lease does not.  Where CLOCK_BOOTTIME is missing
(macOS, Windows) the monotonic clock has to do.
"""

import time

if hasattr(time, "CLOCK_BOOTTIME"):
    _BOOTTIME = time.CLOCK_BOOTTIME

    def clock_ms() -> int:
        return time.clock_gettime_ns(_BOOTTIME) // 1_000_000

    def clock() -> float:
        """Return seconds since the machine started, asleep or awake.  Comparable between the processes of one machine."""
        return time.clock_gettime(_BOOTTIME)
else:  # pragma: no cover - not Linux

    def clock_ms() -> int:
        return time.monotonic_ns() // 1_000_000

    def clock() -> float:
        """Return monotonic seconds.  Comparable between the processes of one machine."""
        return time.monotonic()
