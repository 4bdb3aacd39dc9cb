"""What the nodes say of themselves: asked of every known node at once, without a session and without a leader."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from coord_core.client.driver import reason_of
from coord_core.client.url import split_address
from coord_core.errors import CoordError, ProtocolError, Unavailable, error_from_wire
from coord_core.protocol.members import Member
from coord_core.protocol.messages import (
    CLIENT_FRAME_BYTES_MAX,
    MAGIC,
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    GetStatus,
    Hello,
    NodeStatus,
    Refused,
    ServerMessage,
    Welcome,
)
from coord_core.wire.codec import decode_server, encode_messages
from coord_core.wire.frames import FrameParser

_READ_BYTES = 65_536
_M = TypeVar("_M")
_CLOSED = "the node closed the connection"


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What came of asking one node: its status, or why there is none."""

    address: str
    status: NodeStatus | None
    error: CoordError | None


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What all known nodes said."""

    nodes: tuple[NodeReport, ...]

    @property
    def leader(self) -> NodeStatus | None:
        """The node that leads, by its own word; of several (one has not noticed yet) the one of the highest term."""
        leading = [report.status for report in self.nodes if report.status is not None and report.status.role == "leader"]
        return max(leading, key=lambda status: status.term, default=None)

    @property
    def members(self) -> tuple[Member, ...]:
        """The cluster as the node with the longest applied log knows it; empty where none answered."""
        answered = [report.status for report in self.nodes if report.status is not None]
        newest = max(answered, key=lambda status: status.applied_index, default=None)
        return () if newest is None else newest.members


async def ask_cluster(addresses: Iterable[str], token: str, tls: ssl.SSLContext | None, timeout_s: float) -> ClusterReport:
    """Ask the addresses and every member that they name.  A node that does not answer in time is reported as `Unavailable`."""
    reports: dict[str, NodeReport] = {}
    waiting = list(dict.fromkeys(addresses))
    while waiting:
        for report in await asyncio.gather(*(ask_node(address, token, tls, timeout_s) for address in waiting)):
            reports[report.address] = report
        waiting = _unasked(reports.values())
    return ClusterReport(_without_twins(reports.values()))


async def ask_node(address: str, token: str, tls: ssl.SSLContext | None, timeout_s: float) -> NodeReport:
    """Ask one node."""
    try:
        async with asyncio.timeout(timeout_s):
            return NodeReport(address, await _converse(address, token, tls), None)
    except TimeoutError:
        return NodeReport(address, None, Unavailable(f"{address} did not answer within {timeout_s:g} s"))
    except CoordError as error:
        return NodeReport(address, None, error)
    except (OSError, ValueError) as error:
        return NodeReport(address, None, Unavailable(f"{address}: {reason_of(error)}"))


async def _converse(address: str, token: str, tls: ssl.SSLContext | None) -> NodeStatus:
    host, port = split_address(address)
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=host if tls else None)
    try:
        hello = Hello(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, "client", "", token)
        writer.write(MAGIC + encode_messages([hello]))
        incoming = _Incoming(reader)
        try:
            await incoming.expect(Welcome)
        except Unavailable as error:
            if tls is None and error.message == _CLOSED:
                raise Unavailable(f"{_CLOSED} without a word; perhaps it wants TLS: coords://") from None
            raise
        writer.write(encode_messages([GetStatus(1)]))
        return await incoming.expect(NodeStatus)
    finally:
        writer.close()


class _Incoming:
    """The messages of one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._frames = FrameParser(CLIENT_FRAME_BYTES_MAX)
        self._messages: list[ServerMessage] = []

    async def expect(self, kind: type[_M]) -> _M:
        while not self._messages:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise Unavailable(_CLOSED)
            self._messages.extend(map(decode_server, self._frames.feed(data)))
        message = self._messages.pop(0)
        if isinstance(message, Refused):
            raise error_from_wire(message.code, message.message, {})
        if not isinstance(message, kind):
            raise ProtocolError(f"the node answered {type(message).__name__} where {kind.__name__} was due")
        return message


def _unasked(reports: Iterable[NodeReport]) -> list[str]:
    known = list(reports)
    asked = {report.address for report in known}
    names = {report.status.node for report in known if report.status is not None}
    members = [member for report in known if report.status is not None for member in report.status.members]
    unasked = [member.client_address for member in members if member.name not in names and member.client_address not in asked]
    return list(dict.fromkeys(address for address in unasked if address))


def _without_twins(reports: Iterable[NodeReport]) -> tuple[NodeReport, ...]:
    """Leave out second answers of a node that is known by two addresses."""
    seen: set[str] = set()
    kept = []
    for report in reports:
        if report.status is None or report.status.node not in seen:
            kept.append(report)
            seen.update(() if report.status is None else (report.status.node,))
    return tuple(kept)
