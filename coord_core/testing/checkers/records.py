"""Messages of topics: in their places, once, the same for everybody, and on every node's disk or on the way to it.

A place is (topic, offset).  Whoever was told what stands in it, by an acknowledgement or a fetch, fixes it for all; nothing stands
in two places.  A fetch has no gaps, and reaches as far as what was acknowledged before it was asked.  When everything has come to
rest, each node has every record that its machine says there is.
"""

from collections.abc import Iterable

from coord_core.protocol.topics import TopicFetched
from coord_core.testing.node import Node
from coord_core.testing.simulator import Violation
from coord_core.types import TopicNumber


class RecordChecks:
    def __init__(self) -> None:
        self._places: dict[tuple[TopicNumber, int], bytes] = {}
        self._payloads: dict[bytes, tuple[TopicNumber, int]] = {}
        # Of each topic, behind the last message of which a publisher was assured.
        self._ends: dict[TopicNumber, int] = {}
        #: How many messages were acknowledged, fetched, and found on the disks at the end.
        self.counts = {"acknowledged": 0, "fetched": 0, "kept": 0}

    def ends(self) -> dict[TopicNumber, int]:
        """Return how far each topic reaches at least, at this moment."""
        return dict(self._ends)

    def acknowledged(self, topic: TopicNumber, offset: int, payload: bytes) -> None:
        self._stands(topic, offset, payload)
        self._ends[topic] = max(self._ends.get(topic, 0), offset + 1)
        self.counts["acknowledged"] += 1

    def fetched(self, fetched: TopicFetched, known: dict[TopicNumber, int]) -> None:
        """`known`: `ends` of when it was asked."""
        offsets = [record.offset for record in fetched.records]
        if offsets != list(range(fetched.next - len(offsets), fetched.next)):
            raise Violation(f"a fetch of topic {fetched.topic} has gaps: {offsets}, and goes on at {fetched.next}")
        if fetched.end < known.get(fetched.topic, 0):
            raise Violation(f"topic {fetched.topic} ends at {fetched.end}, {known[fetched.topic]} was acknowledged before")
        for record in fetched.records:
            self._stands(fetched.topic, record.offset, record.payload)
        self.counts["fetched"] += len(offsets)

    def judge(self, nodes: Iterable[Node]) -> None:
        """Everything has come to rest: look at what every node has."""
        for node in nodes:
            for topic, earliest, end in node.replica.machine.logs.ranges():
                found = _records(node, topic, earliest)
                missing = [offset for offset in range(earliest, end) if offset not in found]
                if missing:
                    raise Violation(f"{node.name} lacks the records {missing} of topic {topic}, which has {earliest} to {end}")
                for offset in range(earliest, end):
                    self._stands(topic, offset, found[offset])
                self.counts["kept"] += end - earliest

    def _stands(self, topic: TopicNumber, offset: int, payload: bytes) -> None:
        place = (topic, offset)
        if self._places.setdefault(place, payload) != payload:
            raise Violation(f"offset {offset} of topic {topic} is {payload!r}, and was {self._places[place]!r}")
        if self._payloads.setdefault(payload, place) != place:
            raise Violation(f"{payload!r} is in two places: {place} and {self._payloads[payload]}")


def _records(node: Node, topic: TopicNumber, earliest: int) -> dict[int, bytes]:
    """What a node has of a topic: on its disk, and in memory where it is not there yet."""
    on_disk = node.disk.read_records(topic, earliest, 1 << 30, 1 << 40)
    found = {record.offset: record.payload for record in on_disk}
    for record in node.replica.recent_records(topic):
        if found.setdefault(record.offset, record.payload) != record.payload:
            raise Violation(f"{node.name} has {record.offset} of topic {topic} on its disk as {found[record.offset]!r}")
    return found
