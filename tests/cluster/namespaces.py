"""A network of the kernel's: every host in a namespace of its own, joined by a hub that routes between them.

A routing rule in the hub, `from A to B blackhole`, loses packets in one direction without a word, as a broken switch does: kernels
send again, acknowledgements stay out, and nobody is told.  Needs Linux, iproute2 and the right to make namespaces (root).

Nothing has a name on the machine: a namespace lives as long as a process in it, and the process that holds it ends when this one
does, however that ends.
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PORT = 7400
_CLONE_NEWNET = 0x40000000
_SECONDS_MAX = 10.0


class NotAllowed(Exception):
    """This machine, or this user, has no network namespaces."""


class _Space:
    """One namespace, held by a process that ends with its standard input."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.pid = self._holder.pid
        self.path = f"/proc/{self.pid}/ns/net"
        ours, end = os.readlink("/proc/self/ns/net"), time.monotonic() + _SECONDS_MAX
        while self._link() == ours:
            if self._holder.poll() is not None or time.monotonic() > end:
                self.close()
                raise NotAllowed("network namespaces cannot be made here")
            time.sleep(0.002)

    def _link(self) -> str:
        try:
            return os.readlink(self.path)
        except OSError:
            raise NotAllowed("network namespaces cannot be made here") from None

    def ip(self, *lines: str) -> None:
        """Run commands of iproute2 in it, all or nothing."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", "ip", "-batch", "-"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS_MAX,
        )
        if done.returncode:
            raise NotAllowed(f"ip refused {lines}: {done.stderr.strip()}")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdin is not None:
            self._holder.stdin.close()


class Namespaces:
    kind = "network namespaces"

    def __init__(self, hosts: Sequence[str]) -> None:
        """Raises `NotAllowed`."""
        if any(shutil.which(program) is None for program in ("unshare", "nsenter", "ip")):
            raise NotAllowed("unshare, nsenter or ip is missing (util-linux, iproute2)")
        self._numbers = {host: number for number, host in enumerate(hosts, start=1)}
        self._blocked: set[tuple[str, str]] = set()
        self._spaces: dict[str, _Space] = {}
        self._watcher = ThreadPoolExecutor(1, initializer=self._enter_hub)
        try:
            self._hub = _Space()
            self._spaces[""] = self._hub
            self._hub.ip("link set lo up")
            self.run(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
            for host in hosts:
                self._add(host)
        except (NotAllowed, OSError, subprocess.SubprocessError) as error:
            self.close()
            raise NotAllowed(str(error)) from error

    def address(self, node: str) -> str:
        return f"{self._host(node)}:{PORT}"

    def listening(self, node: str) -> list[str]:
        return ["--listen", self.address(node), "--insecure"]

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net={self._spaces[host].path}", "--", *command]

    def run(self, work: Callable[[], T]) -> T:
        """In a thread of the hub's namespace; threads that `work` starts are there too."""
        return self._watcher.submit(work).result()

    def block(self, links: Iterable[tuple[str, str]]) -> None:
        new = set(links) - self._blocked
        self._blocked |= new
        self._rules("add", new)

    def unblock(self, links: Iterable[tuple[str, str]]) -> None:
        gone = set(links) & self._blocked
        self._blocked -= gone
        self._rules("del", gone)

    def close(self) -> None:
        self._watcher.shutdown(wait=True, cancel_futures=True)
        while self._spaces:
            self._spaces.popitem()[1].close()

    def _rules(self, verb: str, links: Iterable[tuple[str, str]]) -> None:
        lines = [f"rule {verb} from {self._host(source)} to {self._host(target)} blackhole" for source, target in sorted(links)]
        if lines:
            self._hub.ip(*lines)

    def _host(self, name: str) -> str:
        return f"10.77.{self._numbers[name]}.2"

    def _add(self, host: str) -> None:
        number, space = self._numbers[host], _Space()
        self._spaces[host] = space
        self._hub.ip(
            f"link add h{number} type veth peer name eth0 netns {space.pid}",
            f"addr add 10.77.{number}.1/24 dev h{number}",
            f"link set h{number} up",
        )
        space.ip(
            "link set lo up",
            f"addr add 10.77.{number}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.77.{number}.1",
        )

    def _enter_hub(self) -> None:
        """A namespace is a thread's own, and is what its children begin with."""
        libc = ctypes.CDLL(None, use_errno=True)
        handle = os.open(self._hub.path, os.O_RDONLY)
        try:
            if libc.setns(handle, _CLONE_NEWNET):
                raise NotAllowed(os.strerror(ctypes.get_errno()))
        finally:
            os.close(handle)
