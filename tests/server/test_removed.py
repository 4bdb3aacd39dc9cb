"""A node that was removed and is started again."""

import pytest

from coord_core.errors import NodeRemoved
from tests.server.removing import a_removed_nodes_directory, with_snapshot_of_its_own
from tests.server.support import Nodes


async def test_a_removed_node_whose_own_snapshot_is_without_it_is_told_so_too(nodes: Nodes) -> None:
    """It cannot find itself among the members; why, the others must tell, not a traceback."""
    directory = await a_removed_nodes_directory(nodes)
    with_snapshot_of_its_own(directory)
    name = next(name for name in ("n1", "n2", "n3") if nodes.config(name).data_dir == directory)
    again = await nodes.start(name)
    with pytest.raises(NodeRemoved, match="was removed from cluster"):
        await again.wait_stopped()
    nodes.running.pop(name)
    await again.stop()
