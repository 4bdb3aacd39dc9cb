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


def test_wheel_ships_sources_only(wheel: Path):
    assert [name for name in zipfile.ZipFile(wheel).namelist() if "__pycache__" in name] == []


def test_migrations_run_from_the_installed_wheel(wheel: Path, tmp_path: Path):
    """The checkout's folder is out of sight there."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
from sqlalchemy import create_engine, inspect
from coord_core.storage.migrate import migrations_directory, run_migrations
assert "site" in str(migrations_directory()), migrations_directory()
with create_engine("sqlite://").connect() as connection, connection.begin():
    run_migrations(connection, "head")
    print(sorted(inspect(connection).get_table_names()))
"""
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "log" in run.stdout
