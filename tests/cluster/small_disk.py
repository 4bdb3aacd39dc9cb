"""A small file system in memory that really fills up: in a mount namespace of its own, so that nothing is left of it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.namespaces import NotAllowed


class SmallDisk:
    """Mounted at `path` (which exists) for whoever is started by `command`.  Others see it under `seen`."""

    def __init__(self, path: Path, size: str) -> None:
        """Raises `NotAllowed` where this user may not mount."""
        script = 'mount -t tmpfs -o size="$1" coord "$0" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, str(path), size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self.close()
            raise NotAllowed("nothing can be mounted here")
        self.seen = Path(f"/proc/{self._holder.pid}/root{path}")

    def command(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *command]

    def fill(self) -> None:
        """Leave no room."""
        with (self.seen / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def free(self) -> None:
        (self.seen / "filler").unlink()

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()
