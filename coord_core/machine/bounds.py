"""How much there may be of everything.  Every replica must agree: changing one is a change of the machine's version (`versions`).

The bounds of single fields that clients check too live in `coord_core.protocol` (path, value and label sizes, a session's TTL, the
window of requests).  The package's docstring has the table.
"""

from coord_core.protocol.commands import WINDOW_REQUESTS_MAX

#: Identifiers and request numbers stay at or below this, so that a double can hold them.
NUMBER_MAX = 2**53 - 1

SESSIONS_MAX = 100_000
ATTACHMENTS_PER_SESSION_MAX = 1_024
ATTACHMENTS_MAX = 200_000

#: What gives something back (`protocol.operations.FREEING`) is admitted beyond WINDOW_REQUESTS_MAX: a process whose every request
#: waits for a lock that it holds itself must still be able to release it.  Tombstones of cancelled requests count as well.
WINDOW_CONTROL_MAX = 2 * WINDOW_REQUESTS_MAX

#: Ranges that a client sends and ranges that the machine has, together.  With n numbers unanswered there are at most n ranges of
#: answered ones on each side; only a client that leaves numbers out for good needs more.
ANSWERED_RANGES_MAX = 2 * WINDOW_CONTROL_MAX

#: Bytes of values in the cached answers of one attachment.  Over it, new requests are refused until the client acknowledges.
ANSWER_BYTES_MAX = 1024 * 1024

HOST_BYTES_MAX = 255

NAMES_MAX = 2_000_000
NAMES_BYTES_MAX = 256 * 1024 * 1024

WAITERS_PER_LOCK_MAX = 10_000
WAITERS_MAX = 1_000_000

VALUES_MAX = 1_000_000
VALUES_BYTES_MAX = 256 * 1024 * 1024

#: Records that streams keep, together.  What goes over pushes out the oldest; who has not read it is told the present state.
RING_RECORDS_MAX = 65_536
RING_BYTES_MAX = 16 * 1024 * 1024

SUBSCRIPTIONS_MAX = 100_000
#: The audience of an announcement stands in an answer that is kept.
SUBSCRIBERS_PER_STREAM_MAX = 1_000

CANDIDATES_PER_ELECTION_MAX = 1_000

MEMBERS_PER_GROUP_MAX = 1_000
#: Metadata and owners of all members: they must go into one frame.
GROUP_BYTES_MAX = 512 * 1024

#: Work of one group's members that is not over, or whose result nobody has asked for.
WORKS_PER_GROUP_MAX = 1_000
#: Of one member's work that is not over: what is due must go into one frame.
WORK_BYTES_PER_MEMBER_MAX = 512 * 1024

TOPICS_MAX = 10_000
TOPIC_GROUPS_MAX = 256
#: Of one topic: three limits make about 64 segments each.
SEGMENTS_MAX = 256

PARKING_LOTS_MAX = 1_000
PIECES_PER_LOT_MAX = 200_000
#: A piece takes 0.3 to 0.8 kB of memory, and a key 0.9 kB; messages take none.
PIECES_MAX = 500_000
#: Of the messages of one lot, and of all.
PARKED_BYTES_PER_LOT_MAX = 4 * 1024**3
PARKED_BYTES_MAX = 16 * 1024**3
#: A bin with so many bytes or pieces takes no more: what one piece that waits long keeps on the disk.
BIN_BYTES = 256 * 1024
BIN_PIECES = 1_000
#: Pieces of one key that were called and get their old place when they come back.
SEATS_MAX = 64

#: Waits of locks and TTLs of values, in cluster time: ten years.
DURATION_MS_MAX = 10 * 365 * 24 * 3600 * 1000

#: So that no entry takes long; the rest fire in the next entries, and the leader's Tick follows at once.
TIMERS_FIRED_MAX = 1_000

#: Names that one `LockList` looks at: a part of a large table takes milliseconds.
NAMES_LISTED_MAX = 20_000

#: Keeps an answer to LockInfo below CLIENT_FRAME_BYTES_MAX.
WAITERS_NAMED_MAX = 1_000
