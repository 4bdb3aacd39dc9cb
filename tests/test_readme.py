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


@pytest.mark.parametrize("call", ["coord_core.connect(", "coord_core.connect_async("])
def test_client_example_runs(call: str, capsys: pytest.CaptureFixture[str]):
    block = next(block for block in BLOCKS if call in block)
    assert URL.search(block)
    cluster = Dev()
    try:
        exec(URL.sub(cluster.url, block), {})
    finally:
        cluster.stop()
    assert "token" in capsys.readouterr().out


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_somewhere(path: str):
    assert (Path(__file__).resolve().parent.parent / path).exists()
