"""The page on fencing does what it says: all its examples, from the first to the last, on real stores."""

from pathlib import Path

import pytest

from tests.cli.running import Dev
from tests.docs.manual import chapters_of, reader
from tests.fencing.servers import postgresql, redis_server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fencing.md"
TEXT = PAGE.read_text()

pytestmark = pytest.mark.xdist_group("fencing")


def test_examples_run_in_order(tmp_path: Path):
    """With one set of names, as they are read."""
    cluster = Dev()
    try:
        with postgresql() as database, redis_server() as socket:
            elsewhere = {
                "postgresql+psycopg://app@db/shop": database,
                "redis://cache:6379/0": f"unix://{socket}",
                "sqlite+aiosqlite:///reports.db": f"sqlite+aiosqlite:///{tmp_path}/reports.db",
            }
            assert all(TEXT.count(place) == 1 for place in elsewhere)
            with reader(str(PAGE), cluster.url, elsewhere) as reading:
                for chapter in chapters_of(TEXT):
                    for block in chapter.blocks:
                        reading.do(block)
    finally:
        assert cluster.stop() == 0


def test_every_chapter_is_in_the_list_at_the_beginning():
    titles = [line.removeprefix("## ") for line in TEXT.splitlines() if line.startswith("## ")]
    listed = [line.partition("[")[2].partition("]")[0] for line in TEXT.partition("## ")[0].splitlines() if line.startswith("| [")]
    assert listed == titles
