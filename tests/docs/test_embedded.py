"""The page on embedded nodes does what it says.  The tests that it shows are run in `tests/plugin`."""

from pathlib import Path

from tests.docs.manual import chapters_of, reader

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedded.md"
TEXT = PAGE.read_text()


def test_examples_run_in_order(tmp_path: Path):
    """With one set of names, as they are read."""
    elsewhere = {"/var/lib/app/coord": str(tmp_path / "coord")}
    assert all(place in TEXT for place in elsewhere)
    with reader(str(PAGE), "", elsewhere) as reading:
        for chapter in chapters_of(TEXT):
            for block in chapter.blocks:
                reading.do(block)
