"""Topics: durable streams of messages that their users write, and consumer groups that remember how far they have read.

A message becomes a *record* with an *offset*: 0, 1, 2, ... over the topic's whole life.  A topic that is deleted and made anew has
another number, and its offsets begin at 0 again.  Times are cluster time: milliseconds that rise as the log does and have nothing
to do with any wall clock.
"""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, Owner, QueryStruct, ResultStruct
from coord_core.types import LogIndex, TopicNumber

PAYLOAD_BYTES_MAX = 256 * 1024
KEY_BYTES_MAX = 1024
HEADERS_MAX = 64
#: Names and values of a record's headers, together.
HEADERS_BYTES_MAX = 16 * 1024
#: Bytes of the name of a consumer group.
GROUP_NAME_BYTES_MAX = 255

#: A message of at most so many bytes, with all that belongs to it, comes along with the news of it.
INLINE_BYTES_MAX = 2048

#: What one fetch may ask for.  It gets one record in any case, however large, if there is one.
FETCH_RECORDS_MAX = 10_000
FETCH_BYTES_MAX = 512 * 1024
TOPICS_LISTED_MAX = 1_000

#: Where a fetch may begin besides an offset: with the oldest record that is kept, or behind the newest.
EARLIEST = -1
LATEST = -2

RETENTION_BYTES_DEFAULT = 1024 * 1024 * 1024
RETENTION_BYTES_MAX = 1024 * RETENTION_BYTES_DEFAULT
RETENTION_RECORDS_MAX = 2**40
RETENTION_AGE_MS_MIN = 1_000
RETENTION_AGE_MS_DEFAULT = 7 * 24 * 3600 * 1000

Headers = tuple[tuple[str, bytes], ...]


class Retention(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How much a topic keeps.  What is over goes from the old end, about a 64th of the limit at a time."""

    #: At most so many bytes, but always the newest record.
    bytes: int = RETENTION_BYTES_DEFAULT
    #: So many records and up to a 64th more.  None: no limit of their number.
    records: int | None = None
    #: For so long, in cluster time, and up to a 64th longer.  None: for ever.
    age_ms: int | None = RETENTION_AGE_MS_DEFAULT


class TopicRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message as it was published; never changed."""

    offset: int
    #: Index of the entry that published it.
    revision: LogIndex
    time_ms: int
    payload: bytes
    key: bytes | None = None
    headers: Headers = ()


# --- operations ------------------------------------------------------------------------------------------------------------------


class TopicCreate(OperationStruct, frozen=True, tag=30):
    """Make a topic.  Answers `TopicCreated`; one that is there stays as it is."""

    path: str
    retention: Retention = Retention()


class TopicConfigure(OperationStruct, frozen=True, tag=31):
    """Change what a topic keeps, at once.  Answers `Done`, or `NotFound`."""

    path: str
    retention: Retention


class TopicPublish(OperationStruct, frozen=True, tag=32):
    """Append a message; the topic is made where there is none.

    Answers `Published`; or, where it is announced, `Announced` when all who were subscribed have been told.
    """

    path: str
    payload: bytes
    key: bytes | None = None
    headers: Headers = ()
    #: For how long the answer waits for those who are subscribed; 0: it is not announced.
    announce_ms: int = 0
    #: The caller itself is a listener of this session, so it must not wait for its own session.
    from_listener: bool = False


class TopicDelete(OperationStruct, frozen=True, tag=33):
    """Delete a topic with its records and groups.  Answers `Done`, also where there is none."""

    path: str


class TopicCommit(OperationStruct, frozen=True, tag=34):
    """Note that a group has worked off everything below `offset`: the next record for it is the one at `offset`.

    Moves forward only: a commit that comes late changes nothing, unless it says `seek`.  Makes the group where there is none.
    Answers `Committed`; `NotHolder` where another attachment has claimed the group; `NotFound`.
    """

    path: str
    group: str
    offset: int
    seek: bool = False


class TopicClaim(OperationStruct, frozen=True, tag=35):
    """Become the one consumer of a group: until this attachment ends or releases it, nobody else may commit.

    Answers `Claimed`, also where it is this attachment's already; `ClaimRefused` where it is another's, unless `takeover`.
    """

    path: str
    group: str
    owner: Owner
    takeover: bool = False


class TopicRelease(OperationStruct, frozen=True, tag=36):
    """Give up the claim of a group.  Answers `Done`, also where this attachment has none."""

    path: str
    group: str


class TopicGroupDelete(OperationStruct, frozen=True, tag=37):
    """Forget a group and how far it has read.  Answers `Done`, also where there is none; `NotHolder` where it is another's."""

    path: str
    group: str


# --- what is told of it ----------------------------------------------------------------------------------------------------------


class MessagePublished(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """A message was appended."""

    offset: int
    #: None: it is longer than INLINE_BYTES_MAX, fetch it.
    record: TopicRecord | None


class TopicDeleted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    topic: TopicNumber


# --- results ---------------------------------------------------------------------------------------------------------------------


class Published(ResultStruct, frozen=True, tag=30):
    offset: int
    revision: LogIndex
    topic: TopicNumber


class TopicCreated(ResultStruct, frozen=True, tag=31):
    topic: TopicNumber
    #: False: it was there.
    created: bool


class Committed(ResultStruct, frozen=True, tag=32):
    """Where the group stands now; beyond what was asked where that came late."""

    offset: int


class Claimed(ResultStruct, frozen=True, tag=33):
    #: Rises with every claim of the group by another attachment: proof to show to others.
    token: int
    #: None: the group has committed nothing yet.
    committed: int | None


class ClaimRefused(ResultStruct, frozen=True, tag=34):
    """Another attachment has claimed the group."""

    owner: Owner
    #: Milliseconds of cluster time since it did.
    since_ms: int


# --- queries ---------------------------------------------------------------------------------------------------------------------


class TopicInfo(QueryStruct, frozen=True, tag=30):
    """Answers `TopicState`."""

    path: str


class TopicList(QueryStruct, frozen=True, tag=31):
    """The topics whose path begins with `prefix`, in order, those after `after`.  Answers `TopicListing`."""

    prefix: str
    after: str = ""
    limit: int = 100


class TopicFetch(QueryStruct, frozen=True, tag=32):
    """Records from an offset on.  Answers `TopicFetched`."""

    path: str
    #: An offset, EARLIEST or LATEST.  What retention has passed is left out.
    start: int
    records_max: int = 1_000
    bytes_max: int = FETCH_BYTES_MAX
    #: Begin with the records of so many milliseconds ago instead; there may be some older ones before them.
    ago_ms: int | None = None


class GroupCursor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A consumer group and how far it has read."""

    name: str
    #: None: it was claimed and has committed nothing.
    committed: int | None
    #: Records that it has not worked off and that are still there.
    lag: int
    #: Who has claimed it.
    owner: Owner | None = None


class TopicState(AnswerStruct, frozen=True, tag=130):
    #: 0: there is no such topic.
    topic: TopicNumber
    #: Of the oldest record that is kept; equal to `end` where there is none.
    earliest: int
    #: Of the next record to be published.
    end: int
    #: Of all records that are kept.
    bytes: int
    retention: Retention
    groups: tuple[GroupCursor, ...]
    time_ms: int


class TopicSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    path: str
    topic: TopicNumber
    earliest: int
    end: int
    bytes: int
    groups: int


class TopicListing(AnswerStruct, frozen=True, tag=131):
    topics: tuple[TopicSummary, ...]
    #: Whether there are more after the last one.
    more: bool


class TopicFetched(AnswerStruct, frozen=True, tag=132):
    #: 0: there is no such topic.
    topic: TopicNumber
    records: tuple[TopicRecord, ...]
    #: Where to go on.
    next: int
    earliest: int
    end: int
    #: The cluster's time at the answer.
    time_ms: int
