"""The manual does what it says: each of its examples is run against a cluster, in order, and prints what it says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from coord_core.client.settings import QUEUED_REQUESTS_MAX
from coord_core.machine import bounds
from coord_core.protocol import commands, groups, operations, parking, semaphores, streams, topics
from tests.cli.running import Dev
from tests.docs.manual import Chapter, chapters_of, reader

PAGE = Path(__file__).resolve().parents[2] / "docs" / "manual.md"
TEXT = PAGE.read_text()
CHAPTERS = chapters_of(TEXT)
#: "All examples of the later chapters begin with these lines."
FIRST = CHAPTERS[0].blocks[0]

pytestmark = pytest.mark.xdist_group("manual")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Dev]:
    dev = Dev()
    yield dev
    assert dev.stop() == 0


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
def test_examples_of_a_chapter_run(chapter: Chapter, cluster: Dev):
    """In order, with one set of names."""
    with reader(str(PAGE), cluster.url) as reading:
        if chapter.blocks[0] is not FIRST:
            reading.do(FIRST)
        for block in chapter.blocks:
            reading.do(block)


@pytest.mark.parametrize(
    "bound",
    [
        commands.WINDOW_REQUESTS_MAX,
        QUEUED_REQUESTS_MAX,
        operations.PATH_BYTES_MAX,
        bounds.WAITERS_PER_LOCK_MAX,
        semaphores.PERMITS_MAX,
        bounds.CANDIDATES_PER_ELECTION_MAX,
        bounds.MEMBERS_PER_GROUP_MAX,
        groups.MEMBER_METADATA_BYTES_MAX,
        bounds.SUBSCRIBERS_PER_STREAM_MAX,
        streams.ANNOUNCE_WAIT_MS_MAX // 1000,
        operations.VALUE_BYTES_MAX,
        topics.PAYLOAD_BYTES_MAX,
        topics.KEY_BYTES_MAX,
        topics.HEADERS_MAX,
        topics.HEADERS_BYTES_MAX,
        bounds.TOPICS_MAX,
        bounds.TOPIC_GROUPS_MAX,
        parking.WAITING_MAX,
        bounds.PIECES_PER_LOT_MAX,
        bounds.PIECES_MAX,
        parking.PIECE_KEY_BYTES_MAX,
        parking.PIECE_ID_BYTES_MAX,
        bounds.PARKED_BYTES_PER_LOT_MAX // 1024**3,
        bounds.PARKED_BYTES_MAX // 1024**3,
        bounds.PARKING_LOTS_MAX,
        bounds.SEATS_MAX,
        bounds.VALUES_MAX,
        bounds.SESSIONS_MAX,
        bounds.NAMES_MAX,
        bounds.RING_RECORDS_MAX,
    ],
)
def test_table_of_bounds_has_the_number(bound: int):
    assert f"{bound:,}" in TEXT.partition("## Bounds")[2]


def test_every_chapter_is_in_the_list_at_the_beginning():
    """And every link of the page leads somewhere."""
    titles = [line.removeprefix("## ") for line in TEXT.splitlines() if line.startswith("## ")]
    listed = [line.partition("[")[2].partition("]")[0] for line in TEXT.partition("## ")[0].splitlines() if line.startswith("| [")]
    assert listed == titles
