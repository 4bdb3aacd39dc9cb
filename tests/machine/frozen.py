"""Snapshots as earlier releases wrote them: `python -m tests.machine.frozen` writes the one of the present format, once.

Each holds the state after the same story, so that a later release can tell that it reads all of it.  A file is never written anew:
that is what makes it worth reading.  Whoever raises `stream.FORMAT` runs this and commits the new file beside the old ones.
"""

from pathlib import Path

from coord_core.machine import stream
from coord_core.protocol.operations import Owner, ValueDelete
from tests.machine.driver import Log

DIRECTORY = Path(__file__).parent / "snapshots"


def path_of(stream_format: int) -> Path:
    return DIRECTORY / f"format-{stream_format}"


def story() -> Log:
    """Something of everything: sessions, attachments, answers, ranges, queues, tokens, timers, values."""
    log = Log()
    holder, waiter, third = log.open(), log.open(ttl_ms=5_000, owner=Owner("host-2", 7, "worker")), log.open()
    child = holder.attach()
    log.time_ms += 10
    holder.hold("/held")
    waiter.acquire("/held")
    child.acquire("/held", wait_ms=60_000, owner=Owner("host-3", 8, "other"))
    third.acquire("/held", wait_ms=0)
    child.hold("/free")
    for number in range(20):
        third.set(f"/value/{number:02}", bytes([number]) * number)
    third.set("/value/00", b"again", ttl_ms=90_000)
    third.set("/value/01", b"", expected=1)
    third.send(30, ValueDelete("/value/02"), low_water=5, answered=((7, 9), (11, 12)))
    waiter.cancel(50)
    third.attach().close_attachment()
    log.wait(5)
    return log


def main() -> None:
    path = path_of(stream.FORMAT)
    if path.exists():
        raise SystemExit(f"{path} is there already, and stays as it is")
    machine = story().machine
    snapshot = machine.begin_snapshot()
    path.write_bytes(b"".join(snapshot.step(1_000_000)))
    assert snapshot.done
    machine.end_snapshot()


if __name__ == "__main__":
    main()
