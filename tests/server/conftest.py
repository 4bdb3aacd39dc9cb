from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.support import Nodes


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Servers in this event loop; all are stopped at the end."""
    found = Nodes(tmp_path)
    yield found
    await found.stop_all()
