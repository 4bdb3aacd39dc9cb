"""The tables of `coord.db`, as SQLAlchemy Core knows them.

These definitions are the newest schema.  A fresh database is made from them; an older one reaches them by the migrations, and a
test holds that both ways end in the same tables.  So a change here comes with a new file in `migrations/versions`.

What rests in the rows is the business of `rows` (log), `records` (topics), `integrity` (checksums) and `snapshots` (chunks).
"""

from sqlalchemy import CheckConstraint, Column, Integer, LargeBinary, MetaData, Table, Text

#: How the bytes inside the rows are written.  Raised where a row's encoding changes, which no migration of tables would show.
FORMAT = 1

metadata = MetaData()

#: One row: who this directory is, and the end of the last transaction.
meta = Table(
    "meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("cluster_id", Text, nullable=False),
    Column("node_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("incarnation", Text, nullable=False),
    # Raised by one in every transaction; the mark file holds the last one that was acknowledged.
    Column("commit_seq", Integer, nullable=False),
    # Where the log ended with that transaction.
    Column("last_index", Integer, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    # The checksum of the hard state that belongs to this transaction: an older hard state row would not fit.
    Column("hard_state_crc", Integer, nullable=False),
    # Over all columns above.
    Column("crc", Integer, nullable=False),
)

#: One row: the founding configuration, written when the node is formed and never changed.  The hash chain begins with it.
founding = Table(
    "founding",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    Column("crc", Integer, nullable=False),
)

#: One row: Raft's persistent state (Raft, figure 2).
hard_state = Table(
    "hard_state",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("term", Integer, nullable=False),
    Column("voted_for", Integer, nullable=False),
    Column("commit_index", Integer, nullable=False),
    Column("crc", Integer, nullable=False),
)

#: One packed row a batch, not one an entry: twice as fast at 256 entries a commit.
log = Table(
    "log",
    metadata,
    Column("first_index", Integer, primary_key=True, autoincrement=False),
    Column("last_index", Integer, nullable=False),
    Column("crc", Integer, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    # Last, so that SQLite reads the other columns without walking the overflow pages.
    Column("data", LargeBinary, nullable=False),
)

#: The node's snapshot, if it has one besides its founding, and where the log begins since then.  One row at most.
snapshot = Table(
    "snapshot",
    metadata,
    Column("staging", Integer, primary_key=True, autoincrement=False),
    Column("last_index", Integer, nullable=False),
    Column("term", Integer, nullable=False),
    Column("configuration", LargeBinary, nullable=False),
    Column("members", LargeBinary, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    # The entries up to here count as gone.
    Column("log_index", Integer, nullable=False),
    Column("log_term", Integer, nullable=False),
    # Whole rows go: the first one that is left may hold entries from before `log_index`.  It follows this index ...
    Column("row_index", Integer, nullable=False),
    # ... and this link of the hash chain.
    Column("chain", LargeBinary, nullable=False),
    # Over all columns above.
    Column("crc", Integer, nullable=False),
)

#: Chunks of that snapshot, of others that are on their way, and of former ones until they are removed.
snapshot_chunk = Table(
    "snapshot_chunk",
    metadata,
    Column("staging", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("crc", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

#: Records of topics: one packed row a topic and batch (ADR 12).
record = Table(
    "record",
    metadata,
    # The topic's number, which no other topic ever has.
    Column("topic", Integer, primary_key=True, autoincrement=False),
    Column("first_offset", Integer, primary_key=True, autoincrement=False),
    Column("last_offset", Integer, nullable=False),
    Column("crc", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

#: One row: up to which applied entry all records are in `record`.  The log is never trimmed past it.
record_progress = Table(
    "record_progress",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("applied_index", Integer, nullable=False),
    Column("crc", Integer, nullable=False),
)
