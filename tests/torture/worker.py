"""A process of a few clients.

    python -m tests.torture.worker URL DIRECTORY NAME CLIENTS SEED BEGAN_NS SHARE

It works until the file `healed` is in the directory, then every client proves that it can do its work, and the process ends.
"""

import asyncio
import logging
import random
import sys
from pathlib import Path

from coord_core import AsyncClient
from tests.torture.actor import Actor
from tests.torture.records import Recorder

HEALED = "healed"


async def live(url: str, name: str, recorder: Recorder, healed: Path, seed: str, began_ns: int, share: int) -> None:
    async with AsyncClient(url, label=name) as client:
        actor = Actor(client, name, recorder, random.Random(seed), began_ns, share)
        glancing = asyncio.ensure_future(actor.glance())
        while not healed.exists():  # noqa: ASYNC240 - costs microseconds
            await actor.act()
        await actor.prove()
        await glancing


async def main(url: str, directory: str, name: str, clients: str, seed: str, began_ns: str, share: str) -> None:
    folder = Path(directory)
    recorder = Recorder(folder / f"{name}.jsonl")
    async with asyncio.TaskGroup() as group:
        for number in range(1, int(clients) + 1):
            client = f"{name}c{number}"
            group.create_task(live(url, client, recorder, folder / HEALED, f"{seed} {client}", int(began_ns), int(share)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
