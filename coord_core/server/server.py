"""A node: put together and taken apart.

Order of starting: the disk, the listening addresses, and then, as soon as the node is formed, what is in `running`.
Order of stopping: the loop first, so that nothing is promised any more; then farewells; the disk last.

The rule: any error that is not expected ends the node with one line in the log.  Its cluster does not need it; a node that goes on
with half its state is what nobody can use.
"""

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Callable
from pathlib import Path

from coord_core.config import LOST_FOUNDER, ServerConfig, format_address, parse_address
from coord_core.errors import CoordError, InvalidConfig, NodeError, NodeSuspect, Unavailable, WrongCluster
from coord_core.machine import VERSION_MAX
from coord_core.protocol.members import Member
from coord_core.protocol.messages import Hello, NodeStatus, PeerIdentity, Welcome
from coord_core.server import tls
from coord_core.server.connections import Connection, Part, Registry
from coord_core.server.forming import Founding, Registrar, about_to_found, forget_incarnation, read_or_draw_incarnation
from coord_core.server.handshake import CLIENT, JOIN, PEER, Doorway, admit
from coord_core.server.joining import ask_until_let_in
from coord_core.server.peers import Ways
from coord_core.server.running import Running
from coord_core.server.writer import StorageThread
from coord_core.storage.api import Restored, Storage
from coord_core.storage.directory import DATABASE
from coord_core.storage.room import RoomLimits
from coord_core.storage.sqlite import SqliteStorage
from coord_core.storage.suspect import condemn

log = logging.getLogger("coord.server")

#: How long a node that stops waits for its disk before it leaves it alone.
CLOSE_TIMEOUT_S = 2.0
#: How long a stopping node gives its last words to go out.
FAREWELL_S = 0.2
BACKLOG = 1024


class Server:
    """One node in this event loop."""

    def __init__(
        self, config: ServerConfig, *, open_storage: Callable[[Path], Storage] | None = None, listen_first_s: float = 0.0
    ) -> None:
        """`open_storage`: None opens SQLite's, with the room that the configuration wants kept.

        `listen_first_s`: how long a node that is to found a cluster by itself listens before it does.  A member of a formed cluster
        that dials it in that time knows it from an earlier life, and it founds nothing.
        """
        self.config = config
        self._listen_first_s = listen_first_s
        self.limits = config.limits
        self._open_storage = open_storage or self._open_sqlite
        #: host:port that clients dial; known once started.
        self.client_address = ""
        #: host:port that other nodes dial; known once started.
        self.peer_address = ""
        self._token = ""
        self._registry = Registry()
        self._listeners: list[asyncio.Server] = []
        self._forming: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None
        # None until the node is formed.
        self._running: Running | None = None
        # A node that founds nothing and asks nobody, until it begins with either.
        self._registrar = Registrar(None)
        # Set while this node listens for those that knew it in an earlier life: the error because of which it founds nothing.
        self._recognised: asyncio.Future[CoordError] | None = None
        self._started = self._stopping = False

    # --- life -------------------------------------------------------------------------------------------------------------------

    async def start(self) -> "Server":
        """Open the disk, listen, and begin to form or to run; return when others can connect.

        Raises `InvalidConfig`, `NodeError` where the disk or an address cannot be had, and `WrongCluster` where this node was about
        to found a second cluster.  What goes wrong later comes out of `wait_stopped`.
        """
        self.config.validate()
        self._token = self.config.secret()
        self._formed = asyncio.Event()
        # Set when the node has stopped, or with the error because of which it must.
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._storage = StorageThread(asyncio.get_running_loop())
        try:
            await self._start()
        except BaseException as error:
            # Given up from outside it has stopped like any other.
            self._started = not isinstance(error, Exception)
            await self.stop()
            raise
        self._started = True
        return self

    async def wait_formed(self) -> None:
        """Wait until this node belongs to a cluster and runs.  Raises why it cannot."""
        formed = asyncio.ensure_future(self._formed.wait())
        ended = asyncio.ensure_future(self.wait_stopped())
        try:
            await asyncio.wait([formed, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            formed.cancel()
            ended.cancel()
        if not self._formed.is_set():
            await self.wait_stopped()
            raise Unavailable("the node was stopped before it was formed")

    async def wait_stopped(self) -> None:
        """Wait until the node has ended; raises the error because of which it did."""
        await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """End the node.  What was written stays, what was not answered is left to the clients to ask elsewhere.  Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        if self._running is not None:
            self._running.stop()
        await self._end_tasks()
        await self._end_connections()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._condemn_if_suspect()
                await self._storage.close()
        except TimeoutError:
            log.warning("node %s: the disk did not answer for %g s; leaving it alone", self.config.name, CLOSE_TIMEOUT_S)
        if not self._ended.done():
            self._ended.set_result(None)
            log.info("node %s has stopped" if self._started else "node %s: this start was refused", self.config.name)

    async def _condemn_if_suspect(self) -> None:
        """A node that must not go on must not start again either, whatever starts it."""
        data_dir = self.config.data_dir
        if data_dir is None or not self._ended.done() or not isinstance(error := self._ended.exception(), NodeSuspect):
            return
        reason = error.message
        try:
            await self._storage.run(lambda: condemn(data_dir, reason))
        except OSError as fault:
            log.critical("node %s: cannot mark %s as suspect (%s): do not start it again", self.config.name, data_dir, fault)

    def fail(self, error: BaseException) -> None:
        """Stop at once because of `error`: say nothing more to anybody.  `wait_stopped` raises it; `stop` cleans up."""
        if self._ended.done() or self._stopping:
            return
        log.critical("node %s stops: %s: %s", self.config.name, type(error).__name__, error, exc_info=_unexpected(error))
        if self._running is not None:
            self._running.halt()
        for connection in list(self._registry.connections):
            connection.abort()
        self._ended.set_exception(error)
        # Whoever runs the node asks; that nobody does is not worth a second line.
        self._ended.exception()

    # --- starting ---------------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        data_dir = self.config.data_dir
        assert data_dir is not None
        # Where nothing is there yet, nothing shall be there if the node is not to found a cluster: it listens before it begins.
        if is_blank := not (data_dir / DATABASE).exists():
            await self._listen_before_founding()
        await self._storage.open(lambda: self._open_storage(data_dir))
        restored = await self._storage.run(lambda: self._storage.storage.load())
        self._check_whose(restored)
        if restored is None and not is_blank:
            await self._listen_before_founding()
        if not self._listeners:
            await self._listen()
        if restored is not None:
            await self._storage.run(lambda: forget_incarnation(data_dir))
            self._run(restored)
        else:
            await self._begin_forming(data_dir)
        for listener in self._listeners:
            await listener.start_serving()
        clients, nodes = (_told(*both) for both in self._listening)
        log.info("node %s listens for clients on %s and for nodes on %s", self.config.name, clients, nodes)

    def _open_sqlite(self, data_dir: Path) -> Storage:
        asked = self.config.storage
        return SqliteStorage(data_dir, room=RoomLimits(asked.reserve_bytes, asked.low_bytes, asked.quota_bytes))

    def _check_whose(self, restored: Restored | None) -> None:
        config = self.config
        if restored is not None and restored.bootstrap.identity.name != config.name:
            fault = f"{config.data_dir} belongs to node {restored.bootstrap.identity.name!r}, not to {config.name!r}"
            raise InvalidConfig(fault, faults=[fault])
        if restored is None and not config.init and not config.join:
            fault = (
                f"{config.data_dir} holds no node yet: start one node with --init and --founders, "
                "all others with --join and its address"
            )
            raise InvalidConfig(fault, faults=[fault])

    async def _listen(self) -> None:
        config = self.config
        needs = config.tls.ca is not None
        if config.shares_port:
            everyone = Doorway(frozenset((CLIENT, PEER, JOIN)), self._token, needs)
            bound_for_clients = await self._listen_on(config.listen, everyone, tls.accepting(config, nodes_only=False))
            bound = bound_for_clients
        else:
            clients = Doorway(frozenset((CLIENT,)), self._token)
            nodes = Doorway(frozenset((PEER, JOIN)), self._token, needs)
            bound_for_clients = await self._listen_on(config.listen, clients, tls.accepting(config, nodes_only=False))
            bound = await self._listen_on(config.peer_listen, nodes, tls.accepting(config, nodes_only=True))
        self.client_address = config.advertise or bound_for_clients
        self.peer_address = config.peer_advertise or (config.advertise if config.shares_port else "") or bound
        self._listening = ((bound_for_clients, self.client_address), (bound, self.peer_address))

    async def _listen_on(self, address: str, doorway: Doorway, context: ssl.SSLContext | None) -> str:
        """Listen and return the address with the port that it became."""
        host, port = parse_address(address)
        limit_s = self.limits.handshake_timeout_ms / 1000
        try:
            listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(self, doorway, self._registry),
                host or None,
                port,
                ssl=context,
                ssl_handshake_timeout=limit_s if context else None,
                backlog=BACKLOG,
                start_serving=False,
            )
        except OSError as error:
            raise NodeError(f"cannot listen on {address}: {error.strerror or error}", address=address) from error
        self._listeners.append(listener)
        return format_address(host, listener.sockets[0].getsockname()[1])

    # --- forming ------------------------------------------------------------------------------------------------------------------

    async def _listen_before_founding(self) -> None:
        """Before a cluster of this node alone is founded: raise where a member of another dials it as one of its own.

        Whoever names its founders waits for them, and needs no such moment.
        """
        if not self.config.init or self.config.founders or not self._listen_first_s:
            return
        await self._listen()
        self._recognised = asyncio.get_running_loop().create_future()
        for listener in self._listeners:
            await listener.start_serving()
        log.info("node %s listens for %g s before it founds a cluster of its own", self.config.name, self._listen_first_s)
        await asyncio.wait([self._recognised], timeout=self._listen_first_s)
        if self._recognised.done():
            raise self._recognised.result()
        self._recognised = None

    async def _begin_forming(self, data_dir: Path) -> None:
        incarnation = await self._storage.run(lambda: read_or_draw_incarnation(data_dir))
        own = self._as_peer(incarnation, replaces=self.config.replace)
        if self.config.init:
            self._registrar = Registrar(Founding(own, self.config.founders))
        self._forming = asyncio.get_running_loop().create_task(self._form(data_dir, own), name="forming")
        self._forming.add_done_callback(self._formed_or_failed)

    async def _form(self, data_dir: Path, own: PeerIdentity) -> None:
        founding = self._registrar.founding
        if founding is not None:
            await self._registrar.everyone()
            bootstrap = founding.close(secrets.token_hex(16))
        else:
            bootstrap = await ask_until_let_in(self._ways("", own), self.config.join)
        storage = self._storage
        await storage.run(lambda: storage.storage.form(bootstrap))
        restored = await storage.run(lambda: storage.storage.load())
        assert restored is not None, "a node that was just formed is not there"
        await storage.run(lambda: forget_incarnation(data_dir))
        log.info(
            "node %s is node %d of cluster %s: %s",
            own.name,
            bootstrap.identity.node_id,
            bootstrap.identity.cluster_id,
            ", ".join(member.name for member in bootstrap.members),
        )
        self._run(restored)

    def _formed_or_failed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    # --- running ------------------------------------------------------------------------------------------------------------------

    def _run(self, restored: Restored) -> None:
        """Begin to take part in the cluster."""
        bootstrap = restored.bootstrap
        # A snapshot that this node took when it had been removed is without it; the others will tell it so.
        known = (*restored.members, *bootstrap.members)
        own = next(member for member in known if member.node_id == bootstrap.identity.node_id)
        identity = self._as_peer(own.incarnation, node_id=own.node_id)
        ways = self._ways(bootstrap.identity.cluster_id, identity)
        self._running = Running(self.config, restored, own, ways=ways, storage=self._storage, failed=self.fail)
        self._running.admission.take_over(self._registrar.take_waiting())
        self._formed.set()
        if own != identity.as_member(own.node_id):
            self._moving = asyncio.get_running_loop().create_task(self._tell_of_change(ways, restored.members), name="moving")
            self._moving.add_done_callback(self._formed_or_failed)

    def _as_peer(self, incarnation: str, *, node_id: int = 0, replaces: bool = False) -> PeerIdentity:
        """Return what this node says of itself to others."""
        addresses = self.peer_address, self.client_address
        return PeerIdentity(self.config.name, incarnation, *addresses, node_id, replaces, VERSION_MAX)

    async def _tell_of_change(self, ways: Ways, members: tuple[Member, ...]) -> None:
        """This node is reached elsewhere than the cluster knows, or is of another release: have that changed, whoever leads."""
        others = [member.peer_address for member in members if member.node_id != ways.own.node_id]
        log.info(
            "node %s tells the cluster that it is at %s and %s, and knows machine version %d",
            ways.own.name,
            self.peer_address,
            self.client_address,
            VERSION_MAX,
        )
        if self._running is not None:
            # Should this node come to lead.
            self._running.join(ways.own)
        await ask_until_let_in(ways, [*self.config.join, *others], is_member=True)

    def _ways(self, cluster_id: str, own: PeerIdentity) -> Ways:
        return Ways(cluster_id, own, self._token, tls.dialling(self.config), self.limits)

    def sockets(self) -> list[int]:
        """Return the descriptors of what listens and of what was accepted, for a process that is forked while this node runs."""
        listening = [one.fileno() for listener in self._listeners for one in listener.sockets]
        return listening + [fd for each in self._registry.connections if (fd := each.fileno()) >= 0]

    def missing_founders(self) -> list[str]:
        """Return the names of the founders for which this node waits to form the cluster; none where it does not wait."""
        founding = self._registrar.founding
        return [] if founding is None or self._running is not None else founding.missing()

    def status(self) -> NodeStatus:
        """Return what this node knows of itself and its cluster.  Raises `Unavailable` where it is not formed yet."""
        if self._running is None:
            raise Unavailable("the node is not formed yet")
        return self._running.status()

    # --- who comes in -------------------------------------------------------------------------------------------------------------

    def take_in(self, connection: Connection, hello: Hello) -> Part:
        """Check a Hello, say Welcome, and return what the connection is from now on.  Raises why it is refused."""
        running = self._running
        cluster_id = "" if running is None else running.cluster_id
        spoken = admit(hello, connection.doorway, cluster_id=cluster_id, has_certificate=connection.has_certificate)
        if hello.role == JOIN:
            return self._take_in_joiner(connection, hello, spoken)
        if running is None:
            raise self._not_formed(hello)
        part = running.accept_peer(connection, hello) if hello.role == PEER else running.accept_client(connection)
        connection.send(running.welcome(spoken, to_member=hello.role == PEER))
        return part

    def _take_in_joiner(self, connection: Connection, hello: Hello, spoken: int) -> Part:
        running, caller = self._running, hello.peer
        assert caller is not None, "checked by the handshake"
        if self._recognised is not None:
            raise about_to_found()
        desk = self._registrar if running is None else running.admission
        joiner = desk.admit(connection, caller)
        if running is None:
            connection.send(Welcome(spoken, "", self.config.name, (), ""))
        else:
            connection.send(running.welcome(spoken, to_member=False))
        desk.welcomed(joiner)
        return joiner

    def _not_formed(self, hello: Hello) -> CoordError:
        """Return why a node that is not formed refuses.

        A member of a formed cluster that dials the node which is to form it knows this node from an earlier life: its disk is lost.
        """
        founding, caller = self._registrar.founding, hello.peer
        if hello.role == PEER and caller is not None and hello.cluster_id:
            if self._recognised is not None:
                if not self._recognised.done():
                    self._recognised.set_result(self._known_from_before(caller, hello.cluster_id))
                return self._recognised.result()
            if founding is not None and founding.is_founder(caller.name):
                error = self._known_from_before(caller, hello.cluster_id)
                self.fail(error)
                return error
        if self._recognised is not None:
            return about_to_found()
        return Unavailable("this node is not formed yet: it waits for the other founders")

    def _known_from_before(self, caller: PeerIdentity, cluster_id: str) -> WrongCluster:
        return WrongCluster(
            f"node {caller.name!r} at {caller.peer_address} says that cluster {cluster_id} is formed already and that this node "
            f"({self.config.name!r}) is a member: its data directory {self.config.data_dir} was lost or is another one.  "
            f"Give it back; {LOST_FOUNDER}"
        )

    # --- ending -------------------------------------------------------------------------------------------------------------------

    async def _end_tasks(self) -> None:
        for task in (self._forming, self._moving):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._running is not None:
            await self._running.stopped()

    async def _end_connections(self) -> None:
        """Give last words a moment to go out, then close what is left."""
        for connection in list(self._registry.connections):
            connection.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._registry.emptied()
        for connection in list(self._registry.connections):
            connection.abort()


def _told(bound: str, advertised: str) -> str:
    """Two addresses only where they differ: whoever looks for what listens needs the one, whoever cannot connect the other."""
    return bound if bound == advertised else f"{bound} (others are told {advertised})"


def _unexpected(error: BaseException) -> BaseException | None:
    """A traceback is for errors that nobody foresaw."""
    return None if isinstance(error, CoordError | OSError) else error
