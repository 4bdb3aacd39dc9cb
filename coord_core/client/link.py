"""The way to a leader: at most one connection, or attempt at one, at a time.

    IDLE --try_next/follow--> RESTING --delay over--> DIALING --connected--> GREETING --it leads--> READY
                                                         |                      |                     |
                                                         +----------- leave: back to IDLE ------------+

The rule: only a node that says it leads is READY; from any other the link goes on to the one it names, or to the next.  The first
node that answers says which cluster it is; a node of another one is passed over from then on, however it came to a known address.
Who wants a link at all, and what is said on it, is `session`'s business.  Pure.
"""

import random
from enum import Enum

from coord_core.client.route import Route
from coord_core.client.settings import SessionConfig
from coord_core.protocol.members import Member
from coord_core.protocol.messages import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Hello, Refused, Welcome


class Phase(Enum):
    IDLE = 1
    #: Waiting for `until_ms` before connecting.
    RESTING = 2
    #: Connecting, until `until_ms` at most.
    DIALING = 3
    #: Hello was sent; until `until_ms` at most.
    GREETING = 4
    #: The node at the other end says that it leads.
    READY = 5


#: Refusals of a whole connection that another try at the same node will not change.
_REFUSED_FOR_GOOD = frozenset({"AuthenticationFailed", "WrongCluster", "UnsupportedVersion", "ProtocolError"})


class Link:
    def __init__(self, config: SessionConfig, rng: random.Random) -> None:
        self._config = config
        self.route = Route(config, rng)
        self.phase = Phase.IDLE
        self.until_ms = 0
        #: The node that is connected or being connected to; the last one otherwise.
        self.address = ""
        #: As this or an earlier connection told last; empty before.
        self.members: tuple[Member, ...] = ()
        #: Whose nodes alone will do; empty before the first has said it.
        self.cluster_id = config.cluster_id
        #: Why the last node was left, for people.
        self.trouble = ""
        #: For the driver: close what there is, then connect there.
        self.disconnect = False
        self.connect_to: str | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether there is a connection."""
        return self.phase is Phase.GREETING or self.phase is Phase.READY

    @property
    def is_limited(self) -> bool:
        """Tell whether the present phase ends at `until_ms` if nothing happens."""
        return self.phase in (Phase.RESTING, Phase.DIALING, Phase.GREETING)

    # --- going -------------------------------------------------------------------------------------------------------------------

    def try_next(self, now_ms: int) -> None:
        """Go to the next address in turn."""
        self._rest(*self.route.advance(now_ms), now_ms)

    def follow(self, leader: str, now_ms: int) -> None:
        """Leave a node that does not lead: for the one that it names, where that makes sense, else for the next."""
        left = self.address
        self.leave()
        if leader != left and self.route.trusts(leader, now_ms):
            self._rest(*self.route.follow(leader), now_ms)
        else:
            self.trouble = f"{left}: the node does not lead and knows no leader"
            self.try_next(now_ms)

    def dial(self, now_ms: int) -> None:
        self.phase, self.until_ms = Phase.DIALING, now_ms + self._config.dial_ms_max
        self.connect_to = self.address

    def leave(self) -> None:
        """Give up the connection or attempt."""
        if self.phase in (Phase.DIALING, Phase.GREETING, Phase.READY):
            self.disconnect = True
            self.connect_to = None
        self.phase = Phase.IDLE

    def lost(self, reason: str, now_ms: int) -> None:
        """The connection or attempt ended by itself."""
        self.blame(reason, now_ms)
        self.phase = Phase.IDLE

    def blame(self, reason: str, now_ms: int) -> None:
        """Remember that the present node failed, and why."""
        self.trouble = f"{self.address}: {reason}"
        self.route.failed(self.address, now_ms)

    def _rest(self, address: str, delay_ms: int, now_ms: int) -> None:
        self.address = address
        if delay_ms > 0:
            self.phase, self.until_ms = Phase.RESTING, now_ms + delay_ms
        else:
            self.dial(now_ms)

    # --- greeting ----------------------------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """The connection stands: return what to say first."""
        self.phase = Phase.GREETING
        return Hello(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, "client", self.cluster_id, self._config.token)

    def is_foreign(self, welcome: Welcome) -> bool:
        """Tell whether the node belongs to another cluster than the first that answered, and did not mind our Hello."""
        return bool(self.cluster_id) and welcome.cluster_id != self.cluster_id

    def welcomed(self, welcome: Welcome) -> bool:
        """Learn from what the node says of its cluster; tell whether it leads."""
        self.cluster_id = welcome.cluster_id
        self.learn(welcome.members)
        own = {member.client_address for member in welcome.members if member.name == welcome.node}
        if not welcome.leader or (welcome.leader != self.address and welcome.leader not in own):
            return False
        self.phase = Phase.READY
        return True

    def learn(self, members: tuple[Member, ...]) -> None:
        """The node says who belongs to its cluster."""
        self.members = members
        self.route.learn(member.client_address for member in members)

    def refused(self, refused: Refused, now_ms: int) -> bool:
        """The node will not have us; tell whether none will, for good: as far as anyone answers."""
        is_foreign = refused.code == "WrongCluster" and bool(self.cluster_id)
        what = "belongs to another cluster" if is_foreign else refused.code
        self.blame(f"{what}: {refused.message}", now_ms)
        if refused.code not in _REFUSED_FOR_GOOD:
            return False
        self.route.refusals.add(self.address)
        if len(self.route.refusals) == len(self.route.addresses):
            return True
        # A stranger says nothing about the cluster that is meant: that may only be without a leader for a moment.
        return self.route.exhausted() and not is_foreign
