"""The place of a queued task: a value that says which task id of this key waits in the broker.

It only saves work; exclusion never rests on it.  It goes when the run begins (the lock then speaks for the key), when the task is
revoked or expires, when the publish fails, and at the latest with its TTL.

The message carries the version of its reservation in a header, so that whoever sees the message last can remove exactly that
reservation in one call, and never a later one.
"""

import json
from dataclasses import dataclass
from typing import Any

from coord_celery.janitor import janitor
from coord_celery.link import Link
from coord_core import Client, errors

#: Message header: "<version> <path>".
HEADER = "coord_reservation"

_QUEUED = "QUEUED"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation that was made, by its version: what is written later under the same path is another's."""

    path: str
    version: int

    def header(self) -> str:
        return f"{self.version} {self.path}"

    @classmethod
    def from_headers(cls, headers: Any) -> "Reservation | None":
        text = (headers or {}).get(HEADER)
        if not isinstance(text, str):
            return None
        version, _, path = text.partition(" ")
        return cls(path, int(version)) if version.isdigit() and path else None


def reserve(client: Client, path: str, task_id: str, ttl: float) -> Reservation | str:
    """Reserve the place for `task_id`; return the reservation, or the task id that has it."""
    value = client.value(path)
    text = json.dumps({"state": _QUEUED, "task_id": task_id}).encode()
    expected = 0
    while True:
        version = value.compare_and_set(expected, text, ttl=ttl)
        if version is not None:
            return Reservation(path, version)
        present = value.get()
        holder = None if present is None else _task_id(present.value)
        if holder not in (None, task_id):
            return holder
        expected = 0 if present is None else present.version


def withdraw(link: Link, reservation: Reservation) -> None:
    """Remove the reservation if it is still there; done later, in the background, where the service does not answer."""
    try:
        _delete(link, reservation)
    except errors.RequestError:
        return
    except errors.CoordError:
        withdraw_later(link, reservation)


def withdraw_later(link: Link, reservation: Reservation) -> None:
    """The same, without waiting for anything."""
    janitor.put(f"reservation {reservation.path}", lambda: _delete(link, reservation))


def withdraw_task_later(link: Link, path: str, task_id: str) -> None:
    """Remove whatever `task_id` may have reserved, where it is not known whether it has."""

    def act() -> None:
        present = link.client().value(path).get()
        if present is not None and _task_id(present.value) == task_id:
            _delete(link, Reservation(path, present.version))

    janitor.put(f"reservation {path} of task {task_id}", act)


def _delete(link: Link, reservation: Reservation) -> None:
    link.client().value(reservation.path).delete(expected=reservation.version)


def _task_id(value: bytes) -> str | None:
    try:
        return str(json.loads(value)["task_id"])
    except (ValueError, KeyError, TypeError):
        return None
