"""Who takes a lock from its holder is written down once, by the leader (spec: resources, DistributedLock)."""

import logging
from pathlib import Path

import pytest

import coord_core
from coord_core.protocol.locks import LockBroken
from coord_core.protocol.operations import Owner
from coord_core.server.loop import audit_line
from coord_core.types import FencingToken
from tests.server.support import Nodes


async def test_the_leader_writes_one_line_with_path_token_who_and_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of three nodes that apply the entry, one says so."""
    caplog.set_level(logging.INFO, "coord.server")
    nodes = Nodes(tmp_path)
    servers = await nodes.cluster("n1", "n2", "n3")
    urls = ",".join(server.client_address for server in servers)
    async with coord_core.AsyncClient(f"coord://{urls}/app", label="alice") as client:
        grant = await client.lock("/l", label="hangs").acquire()
        assert grant is not None
        await client.lock("/l").break_(grant.token, "node h1 is gone")
        # All three have applied what came before this.
        assert await client.lock("/l").acquire() is not None
    await nodes.stop_all()
    (line,) = [record.getMessage() for record in caplog.records if "audit:" in record.getMessage()]
    for part in ("lock '/app/l' broken", f"token {grant.token}", "alice", "hangs", "reason 'node h1 is gone'"):
        assert part in line


def test_what_clients_say_cannot_forge_a_line() -> None:
    """Labels and reasons are quoted."""
    owner = Owner("h", 1, "x\n2026 audit: nothing happened")
    assert audit_line(LockBroken("/l\n", FencingToken(1), owner, owner, "a\nb")).isprintable()
