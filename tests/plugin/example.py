"""What a user of the package writes; run by `test_plugin` in a project of its own, so it has no name that is collected here."""

import asyncio
import subprocess
import sys

import pytest

import coord_core


def test_a_node_is_there(coord):
    with coord.client.lock("/job") as grant:
        assert coord.connect().lock("/job").try_lock() is None
        assert grant.is_held_locally()


def test_and_the_next_test_finds_nothing_of_it(coord):
    coord.client.value("/v").set(b"one")
    assert coord.client.lock("/job").holder() is None


def test_another_process_uses_the_same(coord):
    code = f"import coord_core; print(coord_core.connect({coord.url!r}).lock('/job').try_lock())"
    with coord.client.lock("/job"):
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "None\n"


def test_asynchronous_code_too(coord):
    async def main():
        async with await coord_core.connect_async(coord.url) as client, client.lock("/job"):
            return await client.lock("/job").try_lock()

    assert asyncio.run(main()) is None


def test_a_cluster_outlives_its_leader(coord_cluster):
    cluster = coord_cluster(3)
    grant = cluster.client.lock("/job").acquire()
    first = cluster.leader()
    cluster.kill(first)
    grant.check()
    assert cluster.leader() != first
    cluster.restart(first)
    second = cluster.leader()
    cluster.kill(second)
    grant.check()


def test_a_paused_leader_loses_its_place(coord_cluster):
    cluster = coord_cluster(3)
    grant = cluster.client.lock("/job").acquire()
    first = cluster.leader()
    cluster.pause(first)
    grant.check()
    cluster.resume(first)
    grant.check()


def test_without_a_majority_nobody_answers(coord_cluster):
    cluster = coord_cluster(3, options="ttl=2s&timeout=300ms")
    cluster.client.value("/v").set(b"one")
    cluster.pause(0)
    cluster.pause(1)
    with pytest.raises(coord_core.Unavailable):
        cluster.client.value("/v").get()
    cluster.resume(0)
    cluster.leader()
