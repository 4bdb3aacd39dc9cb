"""A process with a live client that holds a lock, forks eight children, and says in JSON lines what each of them came to.

python forking.py URL
"""

import json
import multiprocessing
import os
import sys
from typing import Any

import coord_core

CHILDREN = 8


def child(client: coord_core.Client, held: coord_core.DistributedLock, url: str, told: Any) -> None:
    refused = []
    for use in (lambda: client.session, held.check, held.is_held_locally, lambda: client.lock("/other").acquire(5)):
        try:
            use()
        except coord_core.UsedAfterFork as error:
            refused.append(error.code)
    with coord_core.connect(url) as own:
        mine = own.lock(f"/own/{os.getpid()}").acquire(5)
        parents = own.lock("/l").acquire(0)
        told.put((refused, None if mine is None else mine.token, parents is None))


def main(url: str) -> None:
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    with coord_core.connect(url) as client:
        held = client.lock("/l")
        grant = held.acquire()
        children = [context.Process(target=child, args=(client, held, url, told)) for _ in range(CHILDREN)]
        for one in children:
            one.start()
        answers = [told.get() for _ in children]
        for one in children:
            one.join()
        held.check()
        exits = [one.exitcode for one in children]
    print(json.dumps({"answers": answers, "exits": exits, "token": grant and grant.token}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
