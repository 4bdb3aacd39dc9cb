"""What a node says that asks to be let in and is not."""

import asyncio
import logging

import pytest

from coord_core.config import LimitsConfig
from coord_core.protocol.messages import PeerIdentity
from coord_core.server.joining import ask_until_let_in
from coord_core.server.peers import Ways
from tests.server.support import until

WAYS = Ways("", PeerIdentity("n2", "a life", "127.0.0.1:2", "127.0.0.1:2"), "", None, LimitsConfig())


async def test_a_node_that_is_not_let_in_says_so_again_and_louder(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong port in --join is refused at once and for ever; one line at the start is easily missed."""
    caplog.set_level(logging.INFO, "coord.server")
    asking = asyncio.ensure_future(ask_until_let_in(WAYS, ["127.0.0.1:1"], repeat_s=0.3))
    try:
        await until(lambda: [record for record in caplog.records if record.levelno == logging.WARNING], "a warning")
    finally:
        asking.cancel()
    first, *_, last = caplog.records
    assert (first.levelno, last.levelno) == (logging.INFO, logging.WARNING)
    assert last.getMessage().startswith("joining: 127.0.0.1:1: cannot be reached: "), "the address once"
