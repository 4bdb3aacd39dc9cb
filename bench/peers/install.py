"""Programs and Python clients of the other systems, in a folder of the build.  `python -m bench.peers.install [SYSTEM ...]`.

The distribution's packages (Debian, Ubuntu) are fetched and unpacked there, so nothing is installed in the machine and no service
starts; the clients go into a virtual environment there.  What cannot be had is left out, and said.  ZooKeeper wants a Java that is
there already.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.system import System, find_program
from bench.peers.systems import SYSTEMS

TREE = Path(__file__).parents[2]
HOME = TREE / "build" / "peers"
ROOT = HOME / "root"
PYTHON = HOME / "venv" / "bin" / "python"


def is_here(system: type[System]) -> bool:
    """Tell whether it can be started and used now."""
    programs = all(find_program(name, ROOT) for name in system.programs)
    return programs and (not system.requirements or (HOME / f"{system.name}.installed").exists())


def install(names: Sequence[str]) -> None:
    """Fetch what is missing of these systems; say what cannot be had."""
    missing = [SYSTEMS[name] for name in names if not is_here(SYSTEMS[name])]
    if missing and not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parents[1])], check=True)
        _pip("--editable", str(TREE))
    for system in missing:
        try:
            _unpack(system.packages)
            _pip(*system.requirements)
        except subprocess.CalledProcessError as error:
            print(f"{system.name} cannot be had: {' '.join(map(str, error.cmd))}\n{error.stderr or ''}", file=sys.stderr)
        else:
            (HOME / f"{system.name}.installed").touch()


def _pip(*arguments: str) -> None:
    _run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], HOME)


def _unpack(packages: Sequence[str]) -> None:
    fetched = HOME / "packages"
    fetched.mkdir(parents=True, exist_ok=True)
    ROOT.mkdir(exist_ok=True)
    for package in packages:
        found = list(fetched.glob(f"{package}_*.deb"))
        if not found:
            _run(["apt-get", "download", "--quiet", package], fetched)
            found = list(fetched.glob(f"{package}_*.deb"))
        _run(["dpkg", "--extract", str(found[0]), str(ROOT)], fetched)


def _run(command: Sequence[str], where: Path) -> None:
    try:
        subprocess.run(command, cwd=where, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise subprocess.CalledProcessError(127, command, stderr=str(error)) from error


if __name__ == "__main__":
    install(sys.argv[1:] or list(SYSTEMS))
