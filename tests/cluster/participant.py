"""A process that takes part in an election or a group, watches, or consumes, and writes down what it is told.

    python participant.py URL LOG elect PATH       enters, and says when it is elected and when it is deposed
    python participant.py URL LOG join PATH        joins, and says who comes and who goes
    python participant.py URL LOG watch PATH       says every version of a value
    python participant.py URL LOG listen PATH      says every message of a topic
    python participant.py URL LOG consume PATH     says every piece of a parking lot, sends it to the topic PATH/broker, and commits

One JSON line an event, with the moment on the clock of leases, which all processes of a machine share.  Ends when its input does.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import coord_core
from coord_core.client.clocks import clock


class Log:
    def __init__(self, path: str) -> None:
        self._out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(self, what: str, **more: Any) -> None:
        line = {"pid": os.getpid(), "what": what, "at": clock(), **more}
        os.write(self._out, json.dumps(line).encode() + b"\n")


def elect(client: coord_core.Client, path: str, log: Log) -> None:
    election = client.election(path)
    election.on_election(lambda epoch: log.say("elected", epoch=epoch), lambda epoch: log.say("deposed", epoch=epoch))
    log.say("ready")


def join(client: coord_core.Client, path: str, log: Log) -> None:
    group = client.group(path)
    group.on_join(lambda member: log.say("joined", member=member.member))
    group.on_leave(lambda member: log.say("left", member=member.member))
    member = group.join(timeout=20)
    log.say("ready", member=member.member)


def watch(client: coord_core.Client, path: str, log: Log) -> None:
    seen = client.value(path).watch()

    def follow() -> None:
        for value in seen:
            log.say("value", version=0 if value is None else value.version)

    seen.start()
    threading.Thread(target=follow, daemon=True).start()
    log.say("ready")


def listen(client: coord_core.Client, path: str, log: Log) -> None:
    client.topic(path).on_message(lambda message: log.say("message", offset=message.offset))
    log.say("ready")


def consume(client: coord_core.Client, path: str, log: Log) -> None:
    lot, broker = client.parking(path), client.topic(f"{path}/broker")

    def persist(call: Callable[[], object]) -> None:
        while True:
            try:
                call()
            except coord_core.LostError:
                return  # whoever consumes now is handed it
            except coord_core.RequestError:
                return
            except coord_core.CoordError:
                continue
            return

    def follow() -> None:
        for piece in lot.consume(commit=False):
            log.say("handed", offset=piece.offset, key=piece.key, id=piece.id)
            persist(lambda piece=piece: broker.publish(piece.message, {"id": piece.id}, piece.key))  # type: ignore[misc]
            persist(lambda piece=piece: log.say("committed", offset=lot.commit(piece.offset + 1)))  # type: ignore[misc]

    threading.Thread(target=follow, daemon=True).start()
    log.say("ready")


PARTS: dict[str, Callable[[coord_core.Client, str, Log], None]] = {
    "elect": elect,
    "join": join,
    "watch": watch,
    "listen": listen,
    "consume": consume,
}


def main(url: str, path: str, part: str, of: str) -> None:
    log = Log(path)
    with coord_core.connect(url, label=f"{part} {os.getpid()}") as client:
        PARTS[part](client, of, log)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
