"""A process that takes a lock again and again and writes down when it believed that it held it.

    python holder.py URL LOG STOP_FILE

One JSON line a grant: token, session, and the belief's beginning and end on the clock of leases, which all processes of a machine
share.  Appended with one write each, so that several processes may use one file.
"""

import json
import os
import sys
import time
from pathlib import Path

import coord_core
from coord_core.client.clocks import clock
from coord_core.errors import CoordError

HOLD_S = 0.005


def main(url: str, log: str, stop_file: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with coord_core.connect(url, label=f"holder {os.getpid()}") as client:
        while not Path(stop_file).exists():
            lock = client.lock("/contended")
            try:
                grant = lock.acquire(timeout=2)
                if grant is None:
                    continue
                line = {"pid": os.getpid(), "token": grant.token, "session": grant.session_id, **belief(grant)}
                os.write(out, json.dumps(line).encode() + b"\n")
                lock.release()
            except CoordError as error:
                os.write(out, json.dumps({"pid": os.getpid(), "error": error.code, "message": str(error)}).encode() + b"\n")


def belief(grant: coord_core.Grant) -> dict[str, float]:
    """Hold the lock a little; return from when until when this process believed that it did."""
    began = until = clock()
    while grant.is_held_locally() and until - began < HOLD_S:
        until = clock()
        time.sleep(0.001)
    return {"began": began, "until": until}


if __name__ == "__main__":
    main(*sys.argv[1:])
