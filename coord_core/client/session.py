"""The client's side of a session, as a state machine without I/O: events in, effects out.

    CONNECTING --opened--> CONNECTED <--alive-- / --link lost--> SUSPENDED
         ^                     |                                     |
         |                     +------------- lease over, or the cluster says expired --> LOST
         +----------------------------------- a new call --------------------------------+
    any --close()--> CLOSED

What a holder may believe: CONNECTED and SUSPENDED, that what it was granted is its own until `lease_deadline_ms`; LOST and CLOSED,
that it holds nothing.  LOST is declared here, at the deadline, without asking anyone, and is final for that session id: grants that
arrive later are dropped, and the first thing said to the next leader closes the old session.  A call made after LOST opens a new
session.  An attached client (`config.session_id`) has an attachment of a session that another process keeps alive: it sends no
keep-alives, takes its lease from `lease_renewed`, and ends with that session.  A client of a detached session (`config.detached`)
takes it up once: when it is lost, or another has it, this client is at its end too.

The lease counts from when the answered keep-alive (or OpenSession) was *sent*, less a margin: a holder never believes longer than
the cluster does (Gray and Cheriton, "Leases", 1989, section 2).

Duties of the driver (`aio` is one, the simulator's client another):

1. After one or several events or calls, `take()` the effects and carry them out in the order of `ClientEffects`' fields.
2. `disconnect`: close the connection or give up the attempt; hand in nothing of it afterwards.
3. `connect_to`: open a connection; say `connected(address)` when it stands (the session then sends `Hello` by itself; a byte stream
   begins with MAGIC before it) or `connection_failed(address)`.  There is never more than one connection or attempt.
4. `send`: messages for the present connection, in order.  What comes back goes into `received` one by one, also `Welcome`.
5. When the connection ends by itself: `disconnected`, once.
6. Call `tick` when `next_wakeup_ms` passes, at the latest soon after; being late costs liveness, never safety.
7. `now_ms` never falls and, where the machine can tell, counts time asleep (CLOCK_BOOTTIME).
8. Attached: call `lease_renewed` at the start and whenever the keeper of the lease names a later deadline, in any case before the
   `tick` at the old one.
9. After `close`, go on until `ClientEffects.finished`, or for as long as is worth waiting; then drop the connection.

What waits to be sent or answered is kept in `calls`, the way to a leader in `link`.  Pure: no clock, no randomness of its own.
"""

import random
from collections.abc import Hashable

import msgspec

from coord_core.client.calls import Calls, Outcome
from coord_core.client.effects import ClientEffects, SessionState, StateChange
from coord_core.client.link import Link, Phase
from coord_core.client.requests import CallId, Kind, Request
from coord_core.client.settings import SessionConfig
from coord_core.client.subscriptions import Subscriptions
from coord_core.errors import (
    AttachmentClosed,
    CoordError,
    LostError,
    OutcomeUnknown,
    SessionClosed,
    SessionExpired,
    SubscriptionLost,
    Superseded,
    error_from_wire,
)
from coord_core.protocol.commands import Call, CloseAttachment, CloseSession, Command, OpenAttachment, OpenDetached, OpenSession
from coord_core.protocol.members import Member
from coord_core.protocol.messages import (
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    Ask,
    ClientMessage,
    KeepAlive,
    KeptAlive,
    Members,
    NotSubscribed,
    Records,
    Redirect,
    Refused,
    Reply,
    Resync,
    ServerMessage,
    Submit,
    Told,
    Welcome,
)
from coord_core.protocol.operations import LockAcquire, LockRelease, Operation, Waiting
from coord_core.protocol.queries import Query, SessionInfo
from coord_core.protocol.queries import SessionState as SessionStateAnswer
from coord_core.protocol.results import AttachmentOpened, DetachedOpened, Failed, Granted, Result, SessionOpened
from coord_core.protocol.semaphores import PermitsGranted, SemaphoreAcquire, SemaphoreRelease
from coord_core.types import AttachmentId, FencingToken, LogIndex, RequestNumber, SessionId, SubscriptionId
from coord_core.wire.codec import encode_command

__all__ = ["CallId", "ClientEffects", "ClientSession", "Outcome", "SessionConfig", "SessionState", "StateChange"]

_BUSY = frozenset({"Busy", "Unavailable"})
_LOST = frozenset({"SessionExpired", "SessionClosed", "AttachmentClosed", "Superseded"})


class ClientSession:
    """One client: one connection at a time, one session at a time, any number of calls."""

    def __init__(self, config: SessionConfig, rng: random.Random, now_ms: int) -> None:
        self.config = config
        self.state = SessionState.CONNECTING
        #: As the cluster granted it.
        self.ttl_ms = config.ttl_ms
        #: None until opened, and again after it was lost.
        self.session_id: SessionId | None = None
        self.attachment_id: AttachmentId | None = None
        #: Every node refused us for good, or the cluster would not open the session: why.  None while there is hope.
        self.refusal: CoordError | None = None
        #: Nothing may be believed held from this moment on.  None: no lease.
        self.lease_deadline_ms: int | None = None

        self._link = Link(config, rng)
        self._calls = Calls(config)
        self._subscriptions = Subscriptions()
        self._effects = ClientEffects()
        # What was granted in the present session and not given back.  With the path: one entry may grant several locks.
        self._held: set[tuple[str, FencingToken]] = set()
        # Why a client that cannot open another session, or a closed one, takes no more calls.
        self._over: LostError | None = None
        # A later attempt waits for this one's end: to be closed when the application says that it has stopped, and not before.
        self._superseded: CloseSession | None = None

        self._generation = 0
        # Someone wants a session, with or without a call.
        self._wanted = False
        self._opening: Request | None = None
        self._keep_alive_at_ms = 0
        self._probe: Request | None = None
        # Sessions and attachments to close, and until when that is worth trying.
        self._burials: list[tuple[Request, int]] = []

        # Of the present connection.
        self._seq = 0
        self._in_flight: dict[int, Request] = {}
        # When the first message was sent to which nothing has come back since; None: heard since.
        self._unheard_since_ms: int | None = None
        # The cluster is busy: sends pause until then.
        self._paused_until_ms = 0
        self._refused_in_a_row = 0
        self._now_ms = now_ms

    # --- what the application asks -----------------------------------------------------------------------------------------------

    def open(self, now_ms: int) -> None:
        """Open the session (or attachment) now, not with the first call."""
        self.check_usable()
        self._begin(now_ms)
        self._wanted = self.session_id is None
        self.refusal = None

    def call(self, operation: Operation, now_ms: int, *, timeout_ms: int | None = None, order: Hashable | None = None) -> CallId:
        """Submit an operation, exactly once however often the connection breaks.

        `timeout_ms`: local; None: `request_timeout_ms`, and on top of it for how long what is announced waits; for an acquire its
        own waiting time and a grace, without end where it waits without end.  `order`: calls with the same value take effect in the
        order in which they are made.

        The outcome is the operation's result, or an error: `Unavailable`, `DiskFull` or `SessionExpired` (not applied),
        `OutcomeUnknown`.  An acquire that was sent and not answered in time comes out as `NotGranted`, and is withdrawn.
        Raises `Busy`, and `SessionClosed`, `SessionExpired` or `AttachmentClosed` where this client takes no more calls.
        """
        self.check_usable()
        if self.state is SessionState.LOST:
            self._begin(now_ms)
        if isinstance(operation, LockRelease | SemaphoreRelease):
            self._held.discard((operation.path, operation.token))
        calls = self._calls
        call = calls.new_id()
        calls.add(Request(call, Kind.CALL, operation), now_ms, timeout_ms, order)
        self._now_ms = now_ms
        return call

    def ask(self, query: Query, now_ms: int, *, timeout_ms: int | None = None, order: Hashable | None = None) -> CallId:
        """Read linearizably; asked again after a failover.  Outcome: the answer, `Unavailable`, or what the cluster refuses with.

        Needs no session.
        """
        return self._plain(Kind.ASK, query, now_ms, timeout_ms, order)

    def command(self, command: Command, now_ms: int, *, timeout_ms: int | None = None) -> CallId:
        """Submit a command that is safe to apply twice, such as `CloseAttachment`."""
        return self._plain(Kind.COMMAND, command, now_ms, timeout_ms, None)

    def cancel(self, call: CallId, now_ms: int) -> None:
        """Withdraw a call.

        An acquire's outcome is `NotGranted`, at once, and the cluster is told until it answers: a grant made meanwhile is released.
        Another call's outcome is `Unavailable` (not sent) or `OutcomeUnknown`.
        """
        self._now_ms = now_ms
        self._calls.cancel(call)

    def follow(self, subscription: SubscriptionId, after: LogIndex, now_ms: int) -> None:
        """Have what comes after a revision delivered (0: first the present state), until `unfollow` or the session's end."""
        self._now_ms = now_ms
        self._subscriptions.add(subscription, after)
        if self.session_id is None:  # Lost in the turn in which it was subscribed: there is nothing else that is followed.
            self._subscriptions.session_lost(SubscriptionLost("the session that subscribed is over"))

    def unfollow(self, subscription: SubscriptionId) -> None:
        """Have nothing more of it delivered; the subscription itself is the caller's to end."""
        self._subscriptions.remove(subscription)

    def acknowledge(self, subscription: SubscriptionId, revision: LogIndex) -> None:
        """Everything delivered up to a revision is worked off."""
        self._subscriptions.acknowledge(subscription, revision)

    def close(self, now_ms: int, *, bury: bool = True) -> None:
        """Give back everything and take no more calls.  Calls without an outcome fail with `SessionClosed` or `OutcomeUnknown`.

        `bury` is False once a detached session was handed off: it is not ours to close any more.
        """
        if self.state is SessionState.CLOSED:
            return
        self._now_ms = now_ms
        error = SessionClosed("the client was closed")
        self._end_session(error, SessionState.CLOSED, bury=bury, reads_too=True)
        self._over = error
        if self._superseded is not None:
            self._bury(self._superseded)

    def lease_renewed(self, deadline_ms: int | None, now_ms: int) -> None:
        """Attached clients: the session's keeper says until when the lease runs."""
        self._now_ms = now_ms
        if deadline_ms is not None and self.state is not SessionState.LOST:
            self.lease_deadline_ms = deadline_ms

    def believes_held(self, path: str, token: FencingToken, now_ms: int) -> bool:
        """Tell whether the grant may still be believed in: not given back, and the lease not over."""
        return (path, token) in self._held and self.lease_deadline_ms is not None and now_ms < self.lease_deadline_ms

    def held(self) -> frozenset[tuple[str, FencingToken]]:
        """Return what was granted and not given back: paths with their tokens."""
        return frozenset(self._held)

    @property
    def over(self) -> LostError | None:
        """Why this client takes no more calls, and never will; None while it does."""
        return self._over

    @property
    def members(self) -> tuple[Member, ...]:
        """The nodes of the cluster, as the last node greeted told; empty before."""
        return self._link.members

    @property
    def trouble(self) -> str:
        """Why the last attempt to reach a leader failed, for people; empty before the first."""
        return self._link.trouble

    @property
    def leader_address(self) -> str | None:
        """Where the connection to a leader stands; None without one."""
        return self._link.address if self._link.phase is Phase.READY else None

    # --- what happens ------------------------------------------------------------------------------------------------------------

    def connected(self, address: str, now_ms: int) -> None:
        """The connection that was asked for stands."""
        self._now_ms = now_ms
        if self._link.phase is Phase.DIALING:
            self._seq = 0
            self._effects.send.append(self._link.hello())

    def connection_failed(self, address: str, now_ms: int, reason: str = "") -> None:
        """The connection that was asked for could not be made."""
        self._now_ms = now_ms
        if self._link.phase is Phase.DIALING:
            self._link.lost(reason or "cannot connect", now_ms)
            self._try_next()

    def disconnected(self, now_ms: int, reason: str = "") -> None:
        """The connection ended by itself."""
        self._now_ms = now_ms
        if self._link.is_open:
            self._link.lost(reason or "the connection was closed", now_ms)
            self._link_lost()
            self._try_next()

    def received(self, message: ServerMessage, now_ms: int) -> None:
        """A message came on the present connection."""
        self._now_ms = now_ms
        self._unheard_since_ms = None
        if self.lease_deadline_ms is not None and now_ms >= self.lease_deadline_ms:
            self._lease_over()
        if type(message) is Reply:
            request = self._in_flight.pop(message.seq, None)
            if request is not None:
                self._replied(request, message.result)
        elif isinstance(message, Records | Resync | NotSubscribed):
            self._subscriptions.received(message)
        elif isinstance(message, Told):
            self._told(message)
        elif isinstance(message, KeptAlive):
            self._kept_alive(message)
        elif isinstance(message, Redirect):
            self._follow(message.leader)
        elif isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Refused):
            self._refused(message)
        elif isinstance(message, Members):
            self._link.learn(message.members)

    def tick(self, now_ms: int) -> None:
        """Time has passed."""
        self._now_ms = now_ms
        if self.lease_deadline_ms is not None and now_ms >= self.lease_deadline_ms:
            self._lease_over()
        self._calls.expire(now_ms)
        if self._link.phase is Phase.READY:
            self._listen()
        elif self._link.is_limited and now_ms >= self._link.until_ms:
            self._link_overdue()
        self._burials = [(request, until) for request, until in self._burials if now_ms < until]

    # --- what to do --------------------------------------------------------------------------------------------------------------

    def take(self) -> ClientEffects:
        """Return what has to be carried out since the last time."""
        link, effects = self._link, self._effects
        if link.phase is Phase.READY:
            self._pump()
        elif link.phase is Phase.IDLE and self._wants_link():
            self._try_next()
        self._effects = ClientEffects()
        if self.state is SessionState.CLOSED and not self._wants_link():
            link.leave()
            effects.send.clear()
            effects.finished = True
        effects.resolved, self._calls.resolved = self._calls.resolved, effects.resolved
        effects.deliveries, self._subscriptions.deliveries = self._subscriptions.deliveries, effects.deliveries
        effects.disconnect, link.disconnect = link.disconnect, False
        effects.connect_to, link.connect_to = link.connect_to, None
        return effects

    def next_wakeup_ms(self) -> int | None:
        """Return when `tick` is next of use; None: not before something else happens."""
        times = [until for _, until in self._burials]
        if self.lease_deadline_ms is not None:
            times.append(self.lease_deadline_ms)
        if self._link.phase is Phase.READY:
            times.extend(self._ready_times())
        elif self._link.is_limited:
            times.append(self._link.until_ms)
        deadline_ms = self._calls.next_deadline_ms()
        if deadline_ms is not None:
            times.append(deadline_ms)
        return min(times) if times else None

    def _ready_times(self) -> list[int]:
        times = []
        if self._unheard_since_ms is not None:
            may_probe = self._probe is None and self.session_id is not None
            wait_ms = self.config.probe_wait_ms if may_probe else self.config.silence_ms_max
            times.append(self._unheard_since_ms + wait_ms)
        if self._keeps_alive() and self._probe is None:
            times.append(self._keep_alive_at_ms)
        if self._probe is not None:
            times.append(self._probe.sent_ms + self._keep_alive_interval_ms)
        if self._paused_until_ms > self._now_ms:
            times.append(self._paused_until_ms)
        return times

    # --- the link ----------------------------------------------------------------------------------------------------------------

    def _wants_link(self) -> bool:
        if self.state is SessionState.CLOSED:
            return bool(self._burials) or self._opening is not None
        return self.session_id is not None or self._wanted or bool(self._burials) or self._calls.wants_link()

    def _try_next(self) -> None:
        self._calls.trouble = self._link.trouble
        if self._wants_link():
            self._link.try_next(self._now_ms)

    def _link_overdue(self) -> None:
        if self._link.phase is Phase.RESTING:
            self._link.dial(self._now_ms)
        else:
            self._leave("no answer in time")

    def _leave(self, reason: str) -> None:
        """Give up this node for another."""
        self._link.blame(reason, self._now_ms)
        self._link.leave()
        self._link_lost()
        self._try_next()

    def _welcomed(self, welcome: Welcome) -> None:
        if self._link.phase is not Phase.GREETING:
            return
        if not PROTOCOL_VERSION_MIN <= welcome.version <= PROTOCOL_VERSION_MAX:
            self._refused(Refused("UnsupportedVersion", f"the node speaks version {welcome.version}"))
        elif self._link.is_foreign(welcome):
            self._refused(Refused("WrongCluster", f"this is node {welcome.node} of cluster {welcome.cluster_id}"))
        elif not self._link.welcomed(welcome):
            self._follow(welcome.leader)
        else:
            self._paused_until_ms = 0
            if self.session_id is not None:
                self._send_probe()  # Before anything else: says whether the session still stands.

    def _follow(self, leader: str) -> None:
        """This node does not lead: go to the one that it names, or to the next."""
        if self._link.is_open:
            self._link_lost()
            self._link.follow(leader, self._now_ms)
            self._calls.trouble = self._link.trouble

    def _refused(self, refused: Refused) -> None:
        if self._link.is_open:
            if self._link.refused(refused, self._now_ms):
                self._give_up_opening(error_from_wire(refused.code, refused.message, {"address": self._link.address}))
            self._link.leave()
            self._link_lost()
            self._try_next()

    def _link_lost(self) -> None:
        """Forget the connection: everything unanswered is to be sent again on the next."""
        self._effects.send.clear()
        self._in_flight.clear()
        self._probe = None
        self._opening = None
        for request, _ in self._burials:
            request.done = False
        self._unheard_since_ms = None
        self._calls.connection_lost()
        self._subscriptions.connection_lost()
        if self.state is SessionState.CONNECTED:
            self._change(SessionState.SUSPENDED)

    def _listen(self) -> None:
        """Ask a silent node for a sign of life, and leave one that gives none."""
        now_ms, config = self._now_ms, self.config
        unheard_ms = 0 if self._unheard_since_ms is None else now_ms - self._unheard_since_ms
        probe_overdue = self._probe is not None and now_ms - self._probe.sent_ms >= self._keep_alive_interval_ms
        if probe_overdue or unheard_ms >= config.silence_ms_max:
            self._leave("no answer in time")
        elif self._probe is None and self.session_id is not None:
            due = self._keeps_alive() and now_ms >= self._keep_alive_at_ms
            if due or unheard_ms >= config.probe_wait_ms:
                self._send_probe()

    # --- sending -----------------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send whatever may be sent now."""
        paused = self._now_ms < self._paused_until_ms
        if self._burials and not paused:
            self._pump_burials()
        if self.session_id is not None and self.attachment_id is not None:
            self._pump_calls(self.session_id, paused=paused)
            self._effects.send += self._subscriptions.messages(self.attachment_id)
        elif self._opening is None and not paused and (self._wanted or self._calls.wants_session()):
            self._open()
        while not paused and (request := self._calls.next_plain()) is not None:
            if request.kind is Kind.ASK:
                self._send(request, Ask(self._seq + 1, request.body))  # type: ignore[arg-type]
            else:
                self._submit(request, request.body)  # type: ignore[arg-type]

    def _pump_burials(self) -> None:
        for request, _ in self._burials:
            if not request.done:
                request.done = True  # Here: under way on this connection.
                self._submit(request, request.body)  # type: ignore[arg-type]

    def _pump_calls(self, session: SessionId, *, paused: bool) -> None:
        calls, attachment = self._calls, self.attachment_id
        assert attachment is not None
        while (request := calls.next_call(paused=paused)) is not None:
            low_water, answered = calls.acknowledgement(request.number)
            number, mark = RequestNumber(request.number), RequestNumber(low_water)
            operation: Operation = request.body  # type: ignore[assignment]
            self._submit(request, Call(session, attachment, number, mark, answered, operation))

    def _submit(self, request: Request, command: Command) -> None:
        self._send(request, Submit(self._seq + 1, msgspec.Raw(encode_command(command))))

    def _send(self, request: Request, message: ClientMessage) -> None:
        now_ms = self._now_ms
        self._seq += 1
        self._in_flight[self._seq] = request
        request.sends += 1
        request.sent_ms = now_ms
        if self._unheard_since_ms is None:
            self._unheard_since_ms = now_ms
        self._effects.send.append(message)

    def _send_probe(self) -> None:
        assert self.session_id is not None
        probe = self._probe = Request(self._calls.new_id(), Kind.PROBE, None)
        self._keep_alive_at_ms = self._now_ms + self._keep_alive_interval_ms
        if self.config.attached:
            self._send(probe, Ask(self._seq + 1, SessionInfo(self.session_id)))
        else:
            self._send(probe, KeepAlive(self._seq + 1, self.session_id, self._generation))

    def _keeps_alive(self) -> bool:
        return self.session_id is not None and not self.config.attached

    @property
    def _keep_alive_interval_ms(self) -> int:
        return max(1, self.ttl_ms // 3)

    def _open(self) -> None:
        config = self.config
        command: Command = OpenSession(config.ttl_ms, config.owner)
        if config.session_id is not None:
            command = OpenAttachment(config.session_id, config.owner)
        elif config.detached is not None:
            detached = config.detached
            command = OpenDetached(detached.name, detached.attempt, config.ttl_ms, config.owner, detached.actor)
        self._opening = Request(self._calls.new_id(), Kind.OPEN, command)
        self._submit(self._opening, command)

    # --- answers -----------------------------------------------------------------------------------------------------------------

    def _replied(self, request: Request, result: Result) -> None:
        kind = request.kind
        if type(result) is Failed:
            self._failed(request, result)
        elif kind is Kind.CALL:
            self._granted(request, result)
            self._calls.answered(request, result)
            self._refused_in_a_row = 0
        elif kind is Kind.OPEN:
            self._opened(request, result)
        elif kind is Kind.BURY:
            self._buried(request)
        elif kind is Kind.COMMAND:
            self._link.route.arrived()
            self._calls.answered(request, result)

    def _told(self, told: Told) -> None:
        request, answer = self._in_flight.pop(told.seq, None), told.answer
        if request is None:
            return
        if isinstance(answer, Failed):
            self._failed(request, answer)
        elif request.kind is Kind.ASK:
            self._link.route.arrived()  # Who only reads has no keep-alives to tell that a leader was reached.
            self._calls.answered(request, answer)
        elif request.kind is Kind.PROBE and isinstance(answer, SessionStateAnswer):
            self._probe = None
            if answer.alive:
                self._proved_alive()
            else:
                self._end_session(SessionExpired("the session is gone"), SessionState.LOST)

    def _kept_alive(self, message: KeptAlive) -> None:
        probe = self._in_flight.pop(message.seq, None)
        if probe is None or probe is not self._probe:
            return
        self._probe = None
        deadline_ms = probe.sent_ms + message.ttl_ms - self.config.margin_ms(message.ttl_ms)
        self.lease_deadline_ms = max(self.lease_deadline_ms or 0, deadline_ms)
        self._proved_alive()

    def _proved_alive(self) -> None:
        self._link.route.arrived()
        if self.state is SessionState.SUSPENDED:
            self._change(SessionState.CONNECTED)

    def _granted(self, request: Request, result: Result) -> None:
        body = request.body
        if (
            isinstance(result, Granted | PermitsGranted)
            and isinstance(body, LockAcquire | SemaphoreAcquire)
            and not request.withdrawn
        ):
            self._held.add((body.path, result.token))

    def _failed(self, request: Request, failed: Failed) -> None:
        code = failed.code
        if code == "NotLeader":
            self._follow(str(failed.details.get("leader", "")))
        elif code in _BUSY:
            self._pause(request)
        elif code == "DiskFull" and _must_wait_for_room(request):
            request.trouble = failed.message
            self._pause(request)
        elif code == "DiskFull" and request.kind is Kind.CALL and request.sends > 1:
            withdrawn = "an earlier attempt may have been granted meanwhile; it is withdrawn, and the lock is not held"
            self._calls.withdraw(request, OutcomeUnknown(f"{failed.message} ({withdrawn})"))
        elif request.kind is Kind.BURY:
            self._buried(request)
        elif code in _LOST and request.kind in (Kind.CALL, Kind.PROBE, Kind.OPEN):
            self._lost_by(request, failed)
        elif request.kind is Kind.OPEN:
            self._opening = None
            self._give_up_opening(_error(failed))
        elif request.kind is Kind.PROBE:
            self._probe = None
        else:
            self._calls.answered(request, _error(failed))

    def _pause(self, request: Request) -> None:
        """The cluster is busy: let it breathe, then send again."""
        self._paused_until_ms = self._now_ms + 1 + self._link.route.backoff_ms(self._refused_in_a_row)
        self._refused_in_a_row += 1
        if request.kind is Kind.OPEN:
            self._opening = None
        elif request.kind is Kind.PROBE:
            self._probe = None
            self._keep_alive_at_ms = self._paused_until_ms
        elif request.kind is Kind.BURY:
            request.done = False
        else:
            self._calls.refused(request)

    def _give_up_opening(self, error: CoordError) -> None:
        self.refusal = error
        self._wanted = False
        self._calls.fail_unsent(error)

    def _opened(self, request: Request, result: Result) -> None:
        self._opening = None
        if isinstance(result, SessionOpened | DetachedOpened):
            session, attachment = result.session, result.attachment
            self.ttl_ms = result.ttl_ms
            if isinstance(result, DetachedOpened):
                self._generation = attachment
                self._calls.number_from(result.request_last)
            else:
                self._generation = result.generation
            deadline_ms = request.sent_ms + result.ttl_ms - self.config.margin_ms(result.ttl_ms)
            if self.state is SessionState.CLOSED or self._now_ms >= deadline_ms:
                # Closed meanwhile, or so late that there is no lease left in it.
                self._bury(CloseSession(session, attachment if self.config.detached is not None else AttachmentId(0)))
                return
            self.lease_deadline_ms = deadline_ms
            self._keep_alive_at_ms = request.sent_ms + self._keep_alive_interval_ms
        elif isinstance(result, AttachmentOpened) and self.config.session_id is not None:
            session, attachment = self.config.session_id, result.attachment
            self.ttl_ms = result.ttl_ms
            if self.state is SessionState.CLOSED:
                self._bury(CloseAttachment(session, attachment))
                return
        else:
            return
        self.session_id, self.attachment_id = session, attachment
        self._wanted, self.refusal = False, None
        self._link.route.arrived()
        self._change(SessionState.CONNECTED)

    # --- the end of a session ----------------------------------------------------------------------------------------------------

    def _lease_over(self) -> None:
        reason = "the session's lease ran out before the cluster answered a keep-alive"
        self._end_session(SessionExpired(reason), SessionState.LOST, bury=True)

    def _lost_by(self, request: Request, failed: Failed) -> None:
        """The cluster says that the session, or this process's part in it, is gone."""
        error = _error(failed)
        assert isinstance(error, LostError)
        if request.kind is Kind.CALL and request.sends == 1:
            self._calls.answered(request, error)  # Sent once and refused: certainly not applied.
        if isinstance(error, Superseded) and self.session_id is not None and self.attachment_id is not None:
            self._superseded = CloseSession(self.session_id, self.attachment_id)
        self._end_session(error, SessionState.LOST, bury=isinstance(error, AttachmentClosed))

    def _end_session(self, error: LostError, state: SessionState, *, bury: bool = False, reads_too: bool = False) -> None:
        """Hold nothing any more, and let every call know."""
        self._held.clear()
        if bury and self.session_id is not None and self.attachment_id is not None:
            if self.config.attached:
                self._bury(CloseAttachment(self.session_id, self.attachment_id))
            else:
                generation = self.attachment_id if self.config.detached is not None else AttachmentId(0)
                self._bury(CloseSession(self.session_id, generation))
        if self.config.attached or self.config.detached is not None:
            self._over = error
        self._calls.session_lost(error, reads_too=reads_too)
        self._subscriptions.session_lost(error)
        keep = (Kind.ASK, Kind.BURY) if state is SessionState.LOST else (Kind.OPEN, Kind.BURY)
        self._in_flight = {seq: request for seq, request in self._in_flight.items() if request.kind in keep}
        if state is SessionState.LOST:
            self._opening = None
        self._probe = None
        self._wanted = False
        self.lease_deadline_ms = None
        self._change(state)
        self.session_id = self.attachment_id = None

    def _bury(self, command: Command) -> None:
        request = Request(self._calls.new_id(), Kind.BURY, command)
        # By then it has expired, even if a new leader gave every session a full TTL in between.
        self._burials.append((request, self._now_ms + 2 * self.ttl_ms + 10_000))

    def _buried(self, request: Request) -> None:
        self._burials = [burial for burial in self._burials if burial[0] is not request]

    # --- small things ------------------------------------------------------------------------------------------------------------

    def _plain(self, kind: Kind, body: Query | Command, now_ms: int, timeout_ms: int | None, order: Hashable | None) -> CallId:
        if self.state is SessionState.CLOSED:
            self.check_usable()
        self._now_ms = now_ms
        call = self._calls.new_id()
        self._calls.add(Request(call, kind, body), now_ms, timeout_ms, order)
        return call

    def check_usable(self) -> None:
        if self._over is not None:
            raise type(self._over)(self._over.message, **self._over.details)

    def _begin(self, now_ms: int) -> None:
        """After LOST: a new session, for those who ask for one."""
        self._now_ms = now_ms
        if self.state is SessionState.LOST:
            self._change(SessionState.CONNECTING)

    def _change(self, state: SessionState) -> None:
        if state is not self.state:
            self.state = state
            self._effects.states.append(StateChange(state, self.session_id))


def _must_wait_for_room(request: Request) -> bool:
    """Whether a request that the cluster has no room for stays with this client, rather than end with `DiskFull`.

    What gives something back is still owed.  A write that was sent before may have been applied then: nobody may be told that it
    was not.  Everything else ends at once: space is freed by people, and whoever called should hear why nothing happens.  So does
    an acquire, however often it was sent: it can be withdrawn, and that passes.
    """
    if request.kind is Kind.BURY or request.urgent:
        return True
    return request.kind is Kind.CALL and request.sends > 1 and not isinstance(request.body, Waiting)


def _error(failed: Failed) -> CoordError:
    return error_from_wire(failed.code, failed.message, dict(failed.details))
