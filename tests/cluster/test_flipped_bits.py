"""Bits that flip on one node's disk, under a cluster that goes on writing: found, or harmless; nobody is told what is not so."""

import random
import shutil
from pathlib import Path

import pytest

from coord_core.errors import NodeError
from coord_core.storage.sqlite import SqliteStorage
from tests.cli.running import until
from tests.cluster.nodes import PATIENCE_S, Nodes
from tests.cluster.writing import Writer

pytestmark = pytest.mark.xdist_group("cluster")

FILES = ("coord.db", "coord.db-wal", "mark")
#: Snapshots and cut logs, so that every table has content.
FLAGS = ("--snapshots.entries", "150", "--snapshots.trailing-entries", "60", "--snapshots.bytes", "20000")
PAGE_BYTES = 4096
PAGE_HEADER_BYTES = 12
DATABASE_HEADER_BYTES = 100
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24


def flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("rounds", [3, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_bit_that_flips_while_a_node_is_down_loses_nothing_for_anybody(tmp_path: Path, rounds: int):
    """Killed in the midst of writes, damaged, started: the node is a whole member again, or it refuses and says why."""
    draw = random.Random(rounds)
    refused = 0
    with Nodes(3, flags=FLAGS) as nodes:
        nodes.start_all()
        with nodes.connect() as client:
            with Writer(client) as writer:
                for number in range(rounds):
                    writer.wait_more(10)
                    name = draw.choice(nodes.names)
                    nodes.kill(name)
                    sound = tmp_path / f"{number} {name}"
                    shutil.copytree(nodes.data(name), sound)
                    file = nodes.data(name) / FILES[number % len(FILES)]
                    flip(file, draw.randrange(file.stat().st_size), draw.randrange(8))
                    refused += starts_or_refuses(nodes, name, sound)
                    shutil.rmtree(sound)
                    writer.wait_more(10)
            nodes.wait_level()
            # Each node in turn must do without one of the others: what it has is needed.
            for name in nodes.names:
                nodes.kill(name)
                writer.check()
                nodes.start(name)
                nodes.wait_level()
    assert refused, "no flip was found; a node that loads whatever it finds would pass too"


def starts_or_refuses(nodes: Nodes, name: str, sound: Path) -> bool:
    """Start the damaged node; where it refuses, give it back what it had.  Return whether it refused."""
    said = len(nodes.log(name))
    nodes.start(name)
    until(lambda: not nodes.is_up(name) or takes_part(nodes, name), PATIENCE_S, f"{name} starting or refusing")
    if nodes.is_up(name):
        return False
    assert nodes.wait_ended(name) != 0
    words = nodes.log(name)[said:]
    assert "must not vote on these files" in words, words
    shutil.rmtree(nodes.data(name))
    shutil.copytree(sound, nodes.data(name))
    nodes.start(name)
    return True


def takes_part(nodes: Nodes, name: str) -> bool:
    """Whether it has applied what the leader had committed when it was asked."""
    seen = nodes.status()
    own = seen[name]
    committed = max((one.commit_index for other, one in seen.items() if one is not None and other != name), default=0)
    return own is not None and own.leader != "" and own.applied_index >= committed - 200


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a node that was killed while its cluster wrote: a snapshot, a log behind it, a write-ahead log with frames
    of several transactions.
    """
    with Nodes(3, flags=FLAGS) as nodes:
        nodes.start_all()
        with nodes.connect() as client, Writer(client, size=300) as writer:
            writer.wait_more(500)
            name = nodes.rest(nodes.wait_leader())[0]
            nodes.kill(name)
        kept = tmp_path_factory.mktemp("killed") / name
        shutil.copytree(nodes.data(name), kept)
    return kept


def headers(killed: Path) -> list[tuple[str, range]]:
    """The header of the database and of each of its pages, of the write-ahead log and of each of its frames and the page in it, and
    the mark.
    """
    mark, database = ((killed / name).stat().st_size for name in ("mark", "coord.db"))
    found = [("mark", range(mark)), ("coord.db", range(DATABASE_HEADER_BYTES)), ("coord.db-wal", range(WAL_HEADER_BYTES))]
    found += [("coord.db", range(page, page + PAGE_HEADER_BYTES)) for page in range(0, database, PAGE_BYTES)]
    found += [("coord.db-wal", range(at, at + FRAME_HEADER_BYTES + PAGE_HEADER_BYTES)) for at in frames(killed / "coord.db-wal")]
    return found


def frames(log: Path) -> list[int]:
    """Return where the frames of the write-ahead log begin (sqlite.org/walformat.html), without those of the last transaction.

    The node may have been killed between that one's COMMIT and the mark: then nobody was told of it, and it may go unseen.
    """
    data, step = log.read_bytes(), FRAME_HEADER_BYTES + PAGE_BYTES
    salt = data[16:24]
    found = list(range(WAL_HEADER_BYTES, len(data) - step + 1, step))
    alive = [at for at in found if data[at + 8 : at + 16] == salt]
    commits = [at for at in alive if data[at + 4 : at + 8] != bytes(4)]
    last = range(commits[-2] + step, commits[-1] + step) if len(commits) > 1 else range(0)
    return [at for at in found if at not in last]


@pytest.mark.parametrize(
    "share", [100, pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])], ids=["some", "all"]
)
def test_a_flipped_bit_in_a_header_is_found_or_harmless(killed: Path, tmp_path: Path, share: int | None):
    """What a real node had on its disk when it was killed: after one flip in one header the same is loaded, or nothing."""
    draw = random.Random(7)
    places = headers(killed)
    if share is not None:
        places = [*places[:3], *draw.sample(places[3:], min(share, len(places) - 3))]
    expected = loaded(shutil.copytree(killed, tmp_path / "sound"))
    assert expected is not None
    damaged = tmp_path / "damaged"
    refused = 0
    for name, header in places:
        shutil.copytree(killed, damaged)
        position, bit = draw.choice(header), draw.randrange(8)
        flip(damaged / name, position, bit)
        found = loaded(damaged)
        assert found in (None, expected), f"bit {bit} of byte {position} of {name}: something else was loaded"
        refused += found is None
        shutil.rmtree(damaged)
    assert refused


def loaded(directory: Path) -> object:
    """Return all that a node would go by, or None where it refuses."""
    try:
        storage = SqliteStorage(directory)
    except NodeError:
        return None
    try:
        return storage.load()
    except NodeError:
        return None
    finally:
        storage.close()
