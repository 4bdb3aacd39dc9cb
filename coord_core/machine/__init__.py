"""The deterministic state machine: sessions, locks and values, changed only by entries of the replicated log.

Rule: the state, the answers and the order of the answers follow from the sequence of `(index, time_ms, command)` alone.  Nothing in
this package reads a clock, draws a random number, logs, or lets the order of a set decide; whatever can come out of the log is
answered, an ill-formed command with `Failed`.  An exception out of `apply` is a broken invariant, or a version of the machine that
this release does not know, and stops the node.

- `machine`: the face: one entry in, its answer and the answers it caused out; queries; the digest.
- `entry`: the entry being applied: its index, its cluster time, the answers it caused.
- `sessions`: who there is: sessions and their attachments.
- `detached`, `relays`: sessions that pass from process to process.
- `windows`: exactly once: the requests an attachment has been, or still is to be, answered.
- `resources`: the registry, and what every type of resource must do, above all when an attachment ends.
- `names`: paths and the resources bound to them.
- `claims`: who waits for locks, semaphores and rate limiters, and who holds.
- `locks`, `semaphores`, `limiters`, `values`, `elections`, `groups`, `topics`, `parking`: the resources;
  `segments` and `cursors` are parts of topics, `works` of groups, `lots`, `bays`, `parked` and `gates` of parking.
- `logs`: which records there must be beside the machine.
- `lists`: what there is, a part at a time.
- `streams`: what happened to them, for those who subscribed.
- `timers`: deadlines in cluster time.
- `spread`: a table that never takes long to grow.
- `versions`: how behaviour changes while nodes of two releases are members.
- `bounds`, `refusals`: how much of everything, and the answers of those who want more.
- `snapshot`, `restoring`, `stream`: the state written down in slices while entries go on being applied, taken up again, and its
  form.
- `rolling`: one number that tells whether two machines did the same.
- `dismantle`: how a machine that another replaced goes away.
- `invariants`: what must hold between any two entries, for the tests and the simulator.

Bounds (constants of `bounds` and of `coord_core.protocol`).  What would go over one is refused with `Failed("LimitExceeded")`,
whose details have `what`, `limit` and `value`, and changes nothing:

| what                                        | constant                      |           bound |
|---------------------------------------------|-------------------------------|-----------------|
| sessions                                    | SESSIONS_MAX                  |         100,000 |
| attachments of a session                    | ATTACHMENTS_PER_SESSION_MAX   |           1,024 |
| attachments                                 | ATTACHMENTS_MAX               |         200,000 |
| bytes of a detached session's name, instance | DETACHED_NAME_, INSTANCE_BYTES_MAX | 512, 128   |
| unanswered requests of an attachment        | WINDOW_REQUESTS_MAX           |           1,024 |
| the same, for releases and cancels          | WINDOW_CONTROL_MAX            |           2,048 |
| ranges of answered requests                 | ANSWERED_RANGES_MAX           |           4,096 |
| values, audiences in unacknowledged answers | ANSWER_BYTES_MAX              | 1 MiB, then one |
| bytes of a path                             | PATH_BYTES_MAX                |             512 |
| bytes of an owner's label, host             | LABEL_BYTES_MAX, HOST_BYTES_MAX |      512, 255 |
| names in use                                | NAMES_MAX                     |       2,000,000 |
| bytes of all names in use                   | NAMES_BYTES_MAX               |         256 MiB |
| waiters of a lock, semaphore, rate limiter  | WAITERS_PER_LOCK_MAX          |          10,000 |
| waiters of all locks; of all semaphores; ...| WAITERS_MAX                   |       1,000,000 |
| permits, and so holders, of a semaphore     | PERMITS_MAX                   |          10,000 |
| bytes of the reason for breaking a lock     | REASON_BYTES_MAX              |             512 |
| bytes of a value                            | VALUE_BYTES_MAX               |         256 KiB |
| values                                      | VALUES_MAX                    |       1,000,000 |
| bytes of all values                         | VALUES_BYTES_MAX              |         256 MiB |
| subscriptions, members and candidates       | SUBSCRIPTIONS_MAX             |         100,000 |
| the same, of one stream                     | SUBSCRIBERS_PER_STREAM_MAX    |           1,000 |
| candidates of an election                   | CANDIDATES_PER_ELECTION_MAX   |           1,000 |
| members of a group                          | MEMBERS_PER_GROUP_MAX         |           1,000 |
| bytes of a member's metadata                | MEMBER_METADATA_BYTES_MAX     |           4 KiB |
| bytes of a group's members                  | GROUP_BYTES_MAX               |         512 KiB |
| calls of a group's members                  | WORKS_PER_GROUP_MAX           |           1,000 |
| bytes of a member's calls                   | WORK_BYTES_PER_MEMBER_MAX     |         512 KiB |
| bytes of a call's arguments, result         | WORK_DATA_BYTES_MAX           |          16 KiB |
| topics                                      | TOPICS_MAX                    |          10,000 |
| consumer groups of a topic                  | TOPIC_GROUPS_MAX              |             256 |
| bytes of a message, its key, its headers    | PAYLOAD_, KEY_, HEADERS_BYTES_MAX | 256, 1, 16 KiB |
| headers of a message                        | HEADERS_MAX                   |              64 |
| segments of a topic                         | SEGMENTS_MAX                  | 256, then two become one |
| parking lots                                | PARKING_LOTS_MAX              |           1,000 |
| pieces that wait for one key                | WAITING_MAX                   |          10,000 |
| pieces of a lot; of all                     | PIECES_PER_LOT_MAX, PIECES_MAX | 200,000; 500,000 |
| bytes of the messages of a lot              | PARKED_BYTES_PER_LOT_MAX      |        4096 MiB |
| bytes of the messages of all lots           | PARKED_BYTES_MAX              |       16384 MiB |
| bytes of a piece's message, its key, its id | MESSAGE_, PIECE_KEY_, PIECE_ID_BYTES_MAX | 256 KiB, 512, 255 |
| seats remembered of a key                   | SEATS_MAX                     | 64, then the oldest is forgotten |
| records that streams keep, together         | RING_RECORDS_MAX              |          65,536 |
| their bytes                                 | RING_BYTES_MAX                |          16 MiB |

Four more bounds cut instead of refusing.  Who has not read what the last two rows pushed out is told the present state instead;
an entry fires at most TIMERS_FIRED_MAX (1,000) timers, the rest fire in the next entries;
a query names at most WAITERS_NAMED_MAX (1,000) waiters, and one part of a list looks at about NAMES_LISTED_MAX (20,000) names.
Durations outside their range (a session's TTL: 500 ms to a day; how long a detached one is held: up to a week; how long a lock
stays closed: up to a day; waits and TTLs of values: up to ten years) and numbers from 2**53 are refused with
`Failed("InvalidRequest")`.
"""

from coord_core.machine.dismantle import dismantle
from coord_core.machine.machine import Applied, Machine
from coord_core.machine.restoring import Restoring
from coord_core.machine.sessions import SessionView
from coord_core.machine.snapshot import Snapshot
from coord_core.machine.stream import CHUNK_BYTES_MAX
from coord_core.machine.versions import VERSION_MAX

__all__ = ["CHUNK_BYTES_MAX", "VERSION_MAX", "Applied", "Machine", "Restoring", "SessionView", "Snapshot", "dismantle"]
