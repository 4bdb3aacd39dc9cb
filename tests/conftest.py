"""For all tests."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long one example takes says something of the machine and nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that is run in this process sets up logging as it would in its own; the next test hears the loggers again."""
    root, coord = logging.getLogger(), logging.getLogger("coord")
    before = root.level, list(root.handlers), coord.level
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    coord.setLevel(before[2])
