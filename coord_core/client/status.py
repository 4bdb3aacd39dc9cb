"""What the nodes say of themselves: asked of every known node at once, without a session and without a leader.

The rule: the report is on one cluster, that of most nodes that answer.  A node of another one that is reached by the same addresses
(a founder that lost its disk and founded anew) is told apart, and has no say in it.
"""

import asyncio
import ssl
from collections import Counter
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
    def cluster_id(self) -> str:
        """The cluster of most nodes that answered, of equally many the one with the most members; empty where none answered."""
        answered = [report.status for report in self.nodes if report.status is not None]
        nodes = Counter(status.cluster_id for status in answered)
        best = max(answered, key=lambda one: (nodes[one.cluster_id], len(one.members), one.applied_index), default=None)
        return "" if best is None else best.cluster_id

    @property
    def foreign(self) -> tuple[NodeReport, ...]:
        """Nodes that answered and belong to another cluster."""
        own = self.cluster_id
        return tuple(report for report in self.nodes if report.status is not None and report.status.cluster_id != own)

    @property
    def leader(self) -> NodeStatus | None:
        """The node that leads, by its own word; of several (one has not noticed yet) the one of the highest term."""
        leading = [status for status in self.answered if status.role == "leader"]
        return max(leading, key=lambda status: status.term, default=None)

    @property
    def answered(self) -> tuple[NodeStatus, ...]:
        """What the nodes of the cluster said that did."""
        own = self.cluster_id
        return tuple(report.status for report in self.nodes if report.status is not None and report.status.cluster_id == own)

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
        return max(self.answered, key=lambda status: status.applied_index, default=None)


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
    said = [report.status for report in known if report.status is not None]
    names = {(status.cluster_id, status.node) for status in said}
    members = [(status.cluster_id, member) for status in said for member in status.members]
    unasked = [member.client_address for cluster, member in members if (cluster, member.name) not in names]
    unasked = [address for address in unasked if address not in asked]
    return list(dict.fromkeys(address for address in unasked if address))


def _without_twins(reports: Iterable[NodeReport]) -> tuple[NodeReport, ...]:
    """Leave out second answers of a node that is known by two addresses."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for report in reports:
        who = None if report.status is None else (report.status.cluster_id, report.status.node)
        if who not in seen:
            kept.append(report)
            seen.update(() if who is None else (who,))
    return tuple(kept)
