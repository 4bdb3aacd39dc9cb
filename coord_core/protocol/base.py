"""What the records of several files here have in common: their bases, who asks, and the bounds of single fields.

A base per union: `operations`, `results` and `queries` join what the files of single resources define.
"""

import msgspec

PATH_BYTES_MAX = 512
VALUE_BYTES_MAX = 256 * 1024
LABEL_BYTES_MAX = 512


class OperationStruct(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all operations."""


class ResultStruct(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all results."""


class QueryStruct(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all queries."""


class AnswerStruct(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all answers.  Tags from 101: answers share a union with a result (`Failed`), so theirs differ."""


class Owner(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who asks, for people who want to know who holds a lock.  Never used to decide anything."""

    host: str
    pid: int
    #: Free text: a task id, a command line.  At most 512 bytes.
    label: str = ""
