"""What users install: one wheel that brings both import packages, the migrations and the types."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(out.glob("*.whl"))


@pytest.mark.parametrize(
    "name",
    [
        "coord_core/__init__.py",
        "coord_core/py.typed",
        "coord_core/storage/migrations/env.py",
        "coord_celery/__init__.py",
    ],
)
def test_wheel_contains(wheel: Path, name: str):
    assert name in zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_nothing_that_is_not_ours(wheel: Path):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"coord_core", "coord_celery"}


def test_a_server_started_from_the_wheel_finds_its_migrations(wheel: Path, tmp_path: Path):
    """The checkout's folder is out of sight there."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from pathlib import Path; import coord_core.storage.sqlite as s; assert 'site' in s.__file__, s.__file__;"
        f"s.SqliteStorage(Path({str(tmp_path / 'data')!r})).close()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
