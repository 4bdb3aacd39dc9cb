"""Checksums and the hash chain over what is stored: pure functions over bytes and numbers.

A page that SQLite hands back is not always the page that was written.  One bit flipped in the middle of a write-ahead log drops
every transaction after it, and one in the database file is served as data; `PRAGMA integrity_check` finds neither.  So:

- every row has a CRC-32 of its own: it tells which row is damaged;
- every log row has a link of a hash chain that starts at the founding configuration: it tells that a row is missing, is an older
  version of itself, or belongs to another log;
- the meta row holds the end of the chain and the hard state's checksum: all tables belong to one and the same transaction;
- the snapshot row says where the kept log begins, index and link: an older row does not fit what is there, unless it says the same;
  its chunks have checksums of their own and a sum over all of them;
- the mark file (`mark`) holds the number of the last acknowledged transaction outside the database.
"""

import zlib
from hashlib import blake2b
from struct import Struct

import msgspec

from coord_core.raft.messages import HardState
from coord_core.storage.api import Identity
from coord_core.storage.tables import FORMAT

#: Bytes in a link of the chain.
CHAIN_SIZE = 16

_ROW_RANGE = Struct(">QQ")
_HARD_STATE = Struct(">QQQ")
_TAIL = Struct(f">QQ{CHAIN_SIZE}sI")

_encode = msgspec.msgpack.Encoder().encode


def first_link(founding: bytes) -> bytes:
    """The link before the first log row, from the bytes of the founding row: a log belongs to the node it was begun for."""
    return blake2b(founding, digest_size=CHAIN_SIZE).digest()


def seal_row(previous_link: bytes, first_index: int, last_index: int, data: bytes) -> tuple[int, bytes]:
    """Return the checksum and the link of a log row that follows `previous_link`."""
    span = _ROW_RANGE.pack(first_index, last_index)
    link = blake2b(previous_link + span, digest_size=CHAIN_SIZE)
    link.update(data)
    return zlib.crc32(data, zlib.crc32(span)), link.digest()


def link_behind_snapshot(sha256: bytes) -> bytes:
    """The link before the first log row behind a leader's snapshot: it replaces all that came before."""
    return blake2b(sha256, digest_size=CHAIN_SIZE).digest()


def snapshot_crc(row: tuple[object, ...]) -> int:
    """The checksum of the snapshot row, from all its other columns."""
    return zlib.crc32(_encode(row))


def founding_crc(data: bytes) -> int:
    return zlib.crc32(data)


def hard_state_crc(state: HardState) -> int:
    return zlib.crc32(_HARD_STATE.pack(state.term, state.voted_for, state.commit))


def identity_crc(identity: Identity) -> int:
    """The constant half of the meta row's checksum, computed once."""
    return zlib.crc32(_encode((FORMAT, identity.cluster_id, identity.node_id, identity.name, identity.incarnation)))


def meta_crc(identity: int, commit_seq: int, last_index: int, chain: bytes, hard_state: int) -> int:
    """The meta row's checksum; `identity` and `hard_state` are checksums themselves."""
    return zlib.crc32(_TAIL.pack(commit_seq, last_index, chain, hard_state), identity)
