"""What the machine alone takes to apply a command: `python -m bench.apply [--locks N]`.

Pairs of acquire and release by fifty sessions over five hundred names, beside so many locks that stay held.  Prints nanoseconds of
processor time a command, the least of several rounds.  To compare two states of the code run them in turn: what else is going on
makes more of a difference than most changes.
"""

import argparse
import gc
import time

from coord_core.machine import Machine
from coord_core.protocol.commands import Call, Command, OpenSession
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation, Owner
from coord_core.types import AttachmentId, FencingToken, LogIndex, RequestNumber, SessionId

_SESSIONS = 50
_PAIRS = 20_000
_OWNER = Owner("host", 1, "")


class Entries:
    """Numbers entries and requests; ten entries have one stamp."""

    def __init__(self) -> None:
        self.index = 0
        self._requests = [0] * (_SESSIONS + 1)

    def next(self, command: Command) -> tuple[LogIndex, int, Command]:
        self.index += 1
        return LogIndex(self.index), 1_000 + self.index // 10, command

    def call(self, number: int, operation: Operation) -> tuple[LogIndex, int, Command]:
        session = 1 + number % _SESSIONS
        self._requests[session] = request = self._requests[session] + 1
        numbers = RequestNumber(request), RequestNumber(request - 1)
        return self.next(Call(SessionId(session), AttachmentId(session), *numbers, (), operation))


def measure(locks: int) -> float:
    machine, entries = Machine(), Entries()
    for _ in range(_SESSIONS):
        machine.apply(*entries.next(OpenSession(10_000, _OWNER)))
    for number in range(locks):
        machine.apply(*entries.call(number, LockAcquire(f"/held/{number}", None, _OWNER)))
    made = []
    for number in range(_PAIRS):
        path = f"/lock/task-{number % 500}"
        made.append(entries.call(number, LockAcquire(path, None, _OWNER)))
        made.append(entries.call(number, LockRelease(path, FencingToken(entries.index))))
    gc.collect()
    gc.freeze()
    begin = time.process_time_ns()
    for entry in made:
        machine.apply(*entry)
    spent = time.process_time_ns() - begin
    gc.unfreeze()
    return spent / len(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--locks", type=int, default=0, help="that stay held all the while")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    print(round(min(measure(arguments.locks) for _ in range(arguments.rounds))))


if __name__ == "__main__":
    main()
