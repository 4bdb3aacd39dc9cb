"""A process that takes up a detached session and its lock, does as it is told, and writes down what comes of it.

    python actor.py URL LOG NAME ATTEMPT PATH

Lines on its input: `hand-off SECONDS`, `release`, `check`.  One JSON line an event, as `participant` writes them.
"""

import sys

import coord_core
from tests.cluster.participant import Log


def main(url: str, path: str, name: str, attempt: str, lock_path: str) -> None:
    log = Log(path)
    client = coord_core.Client(url, label=f"attempt {attempt}", detached=coord_core.Detached(name, int(attempt)))
    client.session.on_state_change(lambda state: log.say(state.value))
    lock = client.lock(lock_path)
    log.say("ready")
    try:
        grant = lock.acquire()
        assert grant is not None
        log.say("holds", token=grant.token)
    except coord_core.CoordError as error:
        log.say("refused", code=error.code)
    for line in sys.stdin:
        try:
            match line.split():
                case ["hand-off", hold]:
                    client.hand_off(hold=float(hold))
                case ["release"]:
                    lock.release()
                case ["check"]:
                    lock.check()
            log.say("done", what_was_done=line.strip())
        except coord_core.CoordError as error:
            log.say("refused", code=error.code)
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
