"""The comparison with other systems says what it means, and its own half of it runs."""

import asyncio

from bench.cluster import Cluster
from bench.peers import measures, report
from bench.peers.coord import CoordClient
from bench.peers.rounds import FIGURES
from bench.peers.systems import SYSTEMS


def test_a_ratio_above_one_means_that_coord_is_better_whichever_way_better_is():
    """Of rates more is better, of times less: a table that mixed them up would praise what is slow."""
    lines = [
        {"system": "coord", "measure": "pairs", "users": 64, "a_second": 3000.0},
        {"system": "etcd", "measure": "pairs", "users": 64, "a_second": 1000.0},
        {"system": "coord", "measure": "resign", "users": 1, "took_ms": 4.0},
        {"system": "etcd", "measure": "resign", "users": 1, "took_ms": 2.0},
    ]
    pairs, resign = report.table(lines).splitlines()[2:]
    assert pairs.split(" | ")[2:] == ["3000", "1000 (3) |"]
    assert resign.split(" | ")[2:] == ["4.0, worst 4.0", "2.0, worst 2.0 (0.5) |"]


def test_the_middle_of_all_rounds_counts_and_what_failed_is_named():
    lines: list[dict[str, object]] = [
        *({"system": "coord", "measure": "reads", "users": 64, "a_second": rate} for rate in (100.0, 900.0, 200.0)),
        {"system": "etcd", "measure": "reads", "users": 64, "error": "Unavailable: gone"},
    ]
    assert report.table(lines).splitlines()[2].split(" | ")[2] == "200 |"
    assert report.errors(lines) == ["etcd reads 64: Unavailable: gone"]


def test_every_row_has_a_system_and_every_system_a_row():
    """A measure with a slip of the pen would be left out in silence."""
    rows = {figure.measure for figure in FIGURES} | {"elections"}
    assert rows == set().union(*(system.measures for system in SYSTEMS.values()))


def test_the_client_of_coord_does_all_that_is_measured():
    """Run once each on a cluster of one node: figures are for `make bench`."""

    async def run(url: str) -> dict[str, float]:
        client = CoordClient([url], ttl_s=5)
        await client.open(2)
        rates = {what: (await measures.rate(client, what, 2, 0.01))["a_second"] for what in ("pairs", "writes", "reads", "publish")}
        handovers = await measures.handovers(client, 2, 0.01)
        heard = asyncio.get_running_loop().create_future()
        await client.subscribe(heard.set_result)
        await client.publish(measures.message())
        assert len(await asyncio.wait_for(heard, 10)) == 128
        await client.campaign("election")
        await client.resign()
        await client.client.close()
        return {**rates, "handovers": handovers["a_second"]}

    with Cluster(1) as cluster:
        found = asyncio.run(run(cluster.url))
    assert all(rate > 0 for rate in found.values())
