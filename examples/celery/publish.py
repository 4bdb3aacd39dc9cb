"""Publish singleton tasks: see shop.py."""

from celery import chord
from coord_celery import DuplicateTask

from examples.celery.shop import rebuild_index, report, sync_user

first = sync_user.delay(7)
print("the same task:", sync_user.delay(user_id=7).id == first.id)

rebuild_index.delay()
try:
    rebuild_index.delay()
except DuplicateTask as duplicate:
    print("refused:", duplicate)

print(first.get(timeout=60))
print(chord(sync_user.si(user) for user in (1, 2, 2))(report.s()).get(timeout=60))
