"""A process whose member takes calls: each says that it ran, and may take its time.

    python callee.py URL LOG PATH

One JSON line an event, as `participant` writes them.  Ends when its input does.
"""

import os
import sys
import time

import coord_core
from tests.cluster.participant import Log


def main(url: str, path: str, group_path: str) -> None:
    log = Log(path)
    with coord_core.connect(url) as client:
        group = client.group(group_path)

        @group.callback("run")
        def run(number: int, duration: float) -> list[int]:
            log.say("ran", number=number)
            time.sleep(duration)
            return [number, os.getpid()]

        @group.callback("fail")
        def fail() -> None:
            raise ValueError("as it should")

        log.say("ready", member=group.join(timeout=20).member)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
