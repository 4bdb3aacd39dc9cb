"""All systems, in the order of the table's columns."""

from bench.peers.coord import Coord
from bench.peers.etcd import Etcd
from bench.peers.nats import Nats
from bench.peers.redis import Redis, RedisSynced
from bench.peers.system import System
from bench.peers.zookeeper import Zookeeper

SYSTEMS: dict[str, type[System]] = {system.name: system for system in (Coord, Etcd, Zookeeper, Redis, RedisSynced, Nats)}
