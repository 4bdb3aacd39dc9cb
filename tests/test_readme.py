"""What the README shows is run as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Dev

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
URL = re.compile(r"coord://127\.0\.0\.1:7401,127\.0\.0\.1:7402,127\.0\.0\.1:7403")


def test_celery_example_declares_a_singleton_task_without_touching_the_network():
    block = next(block for block in BLOCKS if "singleton_task" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["rebuild"].singleton.unique_on == ("account",)


def test_client_examples_run(capsys: pytest.CaptureFixture[str]):
    """Each prints something."""
    blocks = [block for block in BLOCKS if "import coord_core" in block]
    assert len(blocks) == 3
    cluster = Dev()
    try:
        for block in blocks:
            assert URL.search(block)
            exec(URL.sub(cluster.url, block), {})
            assert capsys.readouterr().out
    finally:
        cluster.stop()


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_somewhere(path: str):
    assert (Path(__file__).resolve().parent.parent / path).exists()
