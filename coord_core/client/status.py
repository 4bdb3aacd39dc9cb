"""What the nodes say of themselves: asked of every known node at once, without a session and without a leader."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from coord_core.client.oneshot import converse
from coord_core.errors import CoordError, ProtocolError
from coord_core.protocol.members import Member
from coord_core.protocol.messages import GetStatus, NodeStatus


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
        return () if self._newest is None else self._newest.members

    @property
    def voters(self) -> tuple[str, ...]:
        """The names of those that vote, by the same word."""
        newest = self._newest
        return () if newest is None else tuple(member.name for member in newest.members if member.node_id in newest.voters)

    @property
    def _newest(self) -> NodeStatus | None:
        answered = [report.status for report in self.nodes if report.status is not None]
        return max(answered, key=lambda status: status.applied_index, default=None)


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
        answer = await converse(address, token, tls, GetStatus(1), timeout_s)
    except CoordError as error:
        return NodeReport(address, None, error)
    if not isinstance(answer, NodeStatus):
        return NodeReport(address, None, ProtocolError(f"{address} answered {type(answer).__name__} where NodeStatus was due"))
    return NodeReport(address, answer, None)


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
