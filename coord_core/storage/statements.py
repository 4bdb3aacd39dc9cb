"""The statements of the hot path: written in SQLAlchemy Core, compiled once, run on the driver's own cursor.

Through `Connection.execute` a commit of one entry costs 167 us of processor time, with the same SQL handed to the cursor 87 us, and
the disk's share is the same; so the hot path does without the result and parameter machinery and keeps Core's SQL.  Parameters
are tuples in the order in which Core placed them; `_compile` refuses a statement whose order is another than the one named here.
"""

from sqlalchemy import bindparam, delete, func, insert, literal_column, select, update
from sqlalchemy.dialects.sqlite.pysqlite import dialect
from sqlalchemy.sql import ClauseElement, ColumnElement

from coord_core.storage.tables import hard_state, log, meta, record, record_progress, snapshot, snapshot_chunk

_dialect = dialect(paramstyle="qmark")


def _compile(statement: ClauseElement, *parameters: str) -> str:
    compiled = statement.compile(dialect=_dialect)
    order = tuple(getattr(compiled, "positiontup", None) or ())
    if order != parameters:
        raise AssertionError(f"{compiled} takes {order}, not {parameters}")
    return str(compiled)


#: IMMEDIATE takes the write lock at once, so that nothing fails half way through for want of it.
BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"

#: A `LogRow`.
INSERT_LOG_ROW = _compile(insert(log), "first_index", "last_index", "crc", "chain", "data")

UPDATE_HARD_STATE = _compile(
    update(hard_state).values(
        {name: bindparam(f"new_{name}") for name in ("term", "voted_for", "commit_index", "crc")},
    ),
    "new_term",
    "new_voted_for",
    "new_commit_index",
    "new_crc",
)

UPDATE_META = _compile(
    update(meta).values(
        {name: bindparam(f"new_{name}") for name in ("commit_seq", "last_index", "chain", "hard_state_crc", "crc")},
    ),
    "new_commit_seq",
    "new_last_index",
    "new_chain",
    "new_hard_state_crc",
    "new_crc",
)

#: The last row that begins before an index: the columns of a `LogRow`.
SELECT_ROW_BEFORE = _compile(
    select(log).where(
        log.c.first_index == select(func.max(log.c.first_index)).where(log.c.first_index < bindparam("index")).scalar_subquery()
    ),
    "index",
)

DELETE_ROWS_FROM = _compile(delete(log).where(log.c.first_index >= bindparam("index")), "index")

#: All rows in order: the columns of a `LogRow`.
SELECT_ROWS = _compile(select(log).order_by(log.c.first_index))

DELETE_ROWS_BEFORE = _compile(delete(log).where(log.c.first_index < bindparam("index")), "index")

DELETE_ALL_ROWS = _compile(delete(log))

#: A `Chunk`.
INSERT_CHUNK = _compile(insert(snapshot_chunk), "staging", "seq", "crc", "data")

SELECT_CHUNK = _compile(
    select(snapshot_chunk.c.crc, snapshot_chunk.c.data).where(
        snapshot_chunk.c.staging == bindparam("staging"), snapshot_chunk.c.seq == bindparam("seq")
    ),
    "staging",
    "seq",
)

#: Seq, crc and data of all chunks of a staging, in order.
SELECT_CHUNKS = _compile(
    select(snapshot_chunk.c.seq, snapshot_chunk.c.crc, snapshot_chunk.c.data)
    .where(snapshot_chunk.c.staging == bindparam("staging"))
    .order_by(snapshot_chunk.c.seq),
    "staging",
)

SELECT_STAGINGS = _compile(select(snapshot_chunk.c.staging).distinct().order_by(snapshot_chunk.c.staging))

#: Number and bytes of the chunks of a staging.
MEASURE_STAGING = _compile(
    select(func.count(), func.sum(func.length(snapshot_chunk.c.data))).where(snapshot_chunk.c.staging == bindparam("staging")),
    "staging",
)

#: The first chunks of a staging that are left, up to a seq.
DELETE_CHUNKS_BELOW = _compile(
    delete(snapshot_chunk).where(snapshot_chunk.c.staging == bindparam("staging"), snapshot_chunk.c.seq < bindparam("seq")),
    "staging",
    "seq",
)

SELECT_FIRST_SEQ = _compile(
    select(func.min(snapshot_chunk.c.seq)).where(snapshot_chunk.c.staging == bindparam("staging")), "staging"
)

DELETE_SNAPSHOT = _compile(delete(snapshot))

INSERT_SNAPSHOT = _compile(insert(snapshot), *snapshot.columns.keys())

#: A `RecordRow`.
INSERT_RECORD_ROW = _compile(insert(record), "topic", "first_offset", "last_offset", "crc", "data")

_of_topic = record.c.topic == bindparam("topic")
# Said, or Core would make a parameter of it.
_NONE: ColumnElement[int] = literal_column("0")

#: The lowest number of a topic, above another's, of which there is any row.
SELECT_NEXT_TOPIC = _compile(select(func.min(record.c.topic)).where(record.c.topic > bindparam("topic")), "topic")

#: Of the first rows of a topic: first and last offset.
SELECT_FIRST_RECORD_ROWS = _compile(
    select(record.c.first_offset, record.c.last_offset)
    .where(_of_topic)
    .order_by(record.c.first_offset)
    .limit(bindparam("most"))
    .offset(_NONE),
    "topic",
    "most",
)

SELECT_LAST_OFFSET = _compile(
    select(record.c.last_offset).where(_of_topic).order_by(record.c.first_offset.desc()).limit(literal_column("1")).offset(_NONE),
    "topic",
)

#: Where the row begins in which an offset is, or would be.
SELECT_RECORD_ROW_BEFORE = _compile(
    select(func.max(record.c.first_offset)).where(_of_topic, record.c.first_offset <= bindparam("offset")), "topic", "offset"
)

#: The rows of a topic from a first offset on: the columns of a `RecordRow`.
SELECT_RECORD_ROWS = _compile(
    select(record).where(_of_topic, record.c.first_offset >= bindparam("offset")).order_by(record.c.first_offset),
    "topic",
    "offset",
)

DELETE_RECORD_ROWS_UP_TO = _compile(
    delete(record).where(_of_topic, record.c.first_offset <= bindparam("offset")), "topic", "offset"
)

SELECT_RECORD_PROGRESS = _compile(select(record_progress.c.applied_index, record_progress.c.crc))

DELETE_RECORD_PROGRESS = _compile(delete(record_progress))

INSERT_RECORD_PROGRESS = _compile(insert(record_progress), "id", "applied_index", "crc")
