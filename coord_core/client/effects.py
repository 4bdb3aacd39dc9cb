"""What a `ClientSession` tells its driver: states and effects."""

from dataclasses import dataclass, field
from enum import Enum

from coord_core.client.calls import Outcome
from coord_core.client.requests import CallId
from coord_core.client.subscriptions import Delivery
from coord_core.protocol.messages import ClientMessage
from coord_core.types import SessionId, SubscriptionId


class SessionState(Enum):
    """What a holder may believe; `session` has the transitions."""

    #: No session yet: none was needed, or it is being opened.
    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: No leader answers at the moment; the lease still runs.
    SUSPENDED = "suspended"
    #: The lease is over: nothing is held.
    LOST = "lost"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StateChange:
    state: SessionState
    #: The session it is about; None before the first was opened.
    session_id: SessionId | None


@dataclass(slots=True)
class ClientEffects:
    """What the driver carries out, in this order."""

    #: Close the present connection, or give up the present attempt.
    disconnect: bool = False
    #: Open a connection to this host:port.
    connect_to: str | None = None
    #: Send on the present connection.
    send: list[ClientMessage] = field(default_factory=list)
    #: Tell the callers.
    resolved: list[tuple[CallId, Outcome]] = field(default_factory=list)
    #: Hand out what came for subscriptions.
    deliveries: list[tuple[SubscriptionId, Delivery]] = field(default_factory=list)
    #: Tell the listeners.
    states: list[StateChange] = field(default_factory=list)
    #: After `close`: there is nothing more to do.
    finished: bool = False
