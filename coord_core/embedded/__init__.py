"""A node inside the processes that use it: `coord+embedded:///directory`.

For one machine: tests, a laptop, a small service with a few processes and no cluster.  It is one voter on one disk and never highly
available; but it is durable, and everything else is as in a cluster, so a program grows into one by changing its URL.

The rule: of all processes that use a directory exactly one serves at a time, the one that holds the lock on it.  The others reach
it through its socket, and the first of them to find the lock free serves on, with the same data; sessions survive that as they
survive a failover.  Why it is so: docs/adr/0015-embedded.md.

- `directory`: what lies there, and who serves.
- `seat`: a process's part: it serves, or waits to.
- `inherited`: what a forked child must let go of.

A composition room: it puts `server` behind `client`, which loads it by name (`coord_core.client.place`).
"""

from coord_core.embedded.seat import join

__all__ = ["join"]
