"""What is told of values."""

import msgspec


class ValueChanged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A value was written; version 0: deleted, or its time was over."""

    version: int
    value: bytes
