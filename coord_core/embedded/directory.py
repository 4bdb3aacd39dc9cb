"""The directory of an embedded node: what lies there, and which process serves.

Files, all for their owner alone: `node/` (the data, as of any node), `token` (the secret, drawn once), `serving` (locked by the
process that serves, with its pid), `address` (where it listens).

The rule: an address is believed only while somebody holds the lock.  After a crash another program may listen there, and must not
be shown the token.
"""

import fcntl
import os
import secrets
from pathlib import Path

from coord_core.errors import InvalidUrl
from coord_core.storage.directory import DATABASE

_NODE, _TOKEN, _SERVING, _ADDRESS = "node", "token", "serving", "address"


class EmbeddedDirectory:
    """An existing directory of an embedded node."""

    def __init__(self, path: str) -> None:
        """Make it where it is not there.  Raises `InvalidUrl` where it cannot be used."""
        self.path = Path(path)
        try:
            self._make()
            self._check()
            #: The same for all processes, whoever serves.
            self.token = self._read_or_draw_token()
        except OSError as error:
            raise self._refusal(f"cannot be used: {error.strerror or error}") from error

    @property
    def node(self) -> Path:
        """The data directory of the node itself."""
        return self.path / _NODE

    # --- who serves --------------------------------------------------------------------------------------------------------------

    def try_to_serve(self) -> int | None:
        """Lock it; return the descriptor that holds the lock, or None where another process serves.

        The lock goes with the process however it ends.  Whatever address was written before is gone then.
        """
        fd = os.open(self.path / _SERVING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        self.withdraw()
        os.pwrite(fd, f"{os.getpid():<31}\n".encode("ascii"), 0)
        return fd

    def publish(self, address: str) -> None:
        """Say where this process listens.  Only for who serves."""
        draft = self.path / f"{_ADDRESS}.new"
        draft.unlink(missing_ok=True)
        self._write(draft, address)
        draft.rename(self.path / _ADDRESS)

    def withdraw(self) -> None:
        """Say that nobody listens.  Only for who serves."""
        (self.path / _ADDRESS).unlink(missing_ok=True)

    def address(self) -> str | None:
        """Return where the process that serves listens; None where nobody does yet."""
        if not self._is_served():
            return None
        try:
            return (self.path / _ADDRESS).read_text("ascii").strip() or None
        except FileNotFoundError:
            return None

    def _is_served(self) -> bool:
        try:
            fd = os.open(self.path / _SERVING, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared: those that only look do not keep each other out.  Who would serve at this very moment tries again soon.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    # --- making it ---------------------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        if not self.path.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)

    def _check(self) -> None:
        names = {entry.name for entry in self.path.iterdir()}
        if DATABASE in names:
            raise self._refusal("is the data directory of a node of a cluster: connect to that one, or choose another directory")
        if names and not names & {_TOKEN, _SERVING} and not all(name.startswith(f"{_TOKEN}.") for name in names):
            raise self._refusal("has other files and no embedded node: choose an empty or a new directory")
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise self._refusal("cannot be used: this process may not write there")

    def _read_or_draw_token(self) -> str:
        path = self.path / _TOKEN
        if not path.exists():
            draft = self.path / f"{_TOKEN}.{os.getpid()}.{secrets.token_hex(4)}"
            self._write(draft, secrets.token_urlsafe(32))
            try:
                # Whole, and only once: of two processes that come first, one's stands.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        token = path.read_text("ascii").strip()
        if not token:
            raise self._refusal(f"has an empty {_TOKEN}: remove that file")
        return token

    def _write(self, path: Path, text: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _refusal(self, why: str) -> InvalidUrl:
        return InvalidUrl(f"the directory {self.path} of the embedded node {why}", part="path", path=str(self.path))
