"""The fixtures that ship, in a project of somebody who has installed the wheel."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DOCS = (ROOT / "docs" / "embedded.md").read_text().partition("## In tests")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel, and one test file."""
    directory = tmp_path_factory.mktemp("project")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    zipfile.ZipFile(next(directory.glob("*.whl"))).extractall(directory / "site")
    shutil.copy(HERE / "example.py", directory / "test_example.py")
    return directory


def _pytest(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(project / "site")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(project), *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=110)


def test_fixtures_work_from_the_installed_wheel(project: Path):
    """Found by pytest without being named."""
    run = _pytest(project, "-v", "test_example.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "7 passed" in run.stdout


def test_what_the_documentation_shows_runs(project: Path):
    """Its tests are tests."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    (project / "test_docs.py").write_text("\n".join(blocks))
    run = _pytest(project, "-q", "test_docs.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_fixtures_are_listed_with_what_they_are_for(project: Path):
    """`pytest --fixtures` is where people look."""
    said = _pytest(project, "--fixtures", "-q").stdout
    assert re.search(r"^coord .*\n +A node of this test's own", said, re.MULTILINE)
    assert re.search(r"^coord_cluster .*\n +Make clusters of real processes", said, re.MULTILINE)


def test_plugin_imports_nothing_before_a_test_asks():
    """Every run of pytest in an environment with the package loads it."""
    code = (
        "import coord_core.testing.pytest_plugin, sys; print([m for m in ('sqlalchemy', 'uvloop', 'msgspec') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_nothing_is_left_behind_when_the_test_process_is_killed(tmp_path: Path):
    """Neither `coord dev` nor a node that was started again."""
    code = (
        "import time; from coord_core.testing.real_cluster import RealCluster; c = RealCluster(3); c.restart(1); "
        "print(c._dev.pid, *(n.pid for n in c._nodes), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 4
    process.kill()
    process.wait()
    from tests.cli.running import is_running, until

    until(lambda: not any(is_running(pid) for pid in pids), what="all have ended")
