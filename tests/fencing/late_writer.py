"""A process that takes a lock and writes under its token, each when it is told to.

    python late_writer.py URL KIND ADDRESS

Says "holds TOKEN"; on a line of input it writes and says "wrote" or "stale NEWEST".  It looks neither at its lease nor at the
cluster before it writes: it does what a process does that was stopped right after it had looked.
"""

import sys

import coord_core
from tests.fencing.stores import SqlStore, open_store

NAME = "/jobs/nightly"


def main(url: str, kind: str, address: str) -> None:
    store = open_store(kind, address)
    with coord_core.connect(url) as client:
        grant = client.lock(NAME).acquire()
        assert grant is not None
        print("holds", grant.token, flush=True)
        if isinstance(store, SqlStore) and kind.endswith("guard-last"):
            store.before_guard = in_the_middle  # type: ignore[method-assign]
        else:
            sys.stdin.readline()
        try:
            store.write(grant.token, grant.path)
        except coord_core.StaleToken as error:
            print("stale", error.newest, flush=True)
        else:
            print("wrote", flush=True)
        client.close(timeout=0)


def in_the_middle() -> None:
    """All is written; what is missing is the guard and the commit."""
    print("in the middle", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
