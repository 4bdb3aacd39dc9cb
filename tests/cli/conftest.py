"""Fixtures: clusters that end with the test."""

from collections.abc import Callable, Iterator

import pytest

from tests.cli.running import Dev


@pytest.fixture
def start_dev() -> Iterator[Callable[..., Dev]]:
    """Start clusters that end with the test."""
    started: list[Dev] = []

    def start(*arguments: str) -> Dev:
        started.append(Dev(*arguments))
        return started[-1]

    yield start
    for dev in started:
        if dev.process.poll() is None:
            dev.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Dev]:
    """One cluster for the tests of a module that leave it whole."""
    dev = Dev()
    yield dev
    assert dev.stop() == 0
