"""The client: one way into the cluster for programs.

- `session`: what is true for a holder, and what to send when; pure.  `calls`, `requests`, `route`, `settings` are its parts.
- `aio`: the one client, on asyncio.  `sync`: a facade over it.
- `lock`, `value`: the resources.  `status`: what the nodes say of themselves.
- `url`: how to say where the cluster is.  `clocks`: the clock of all deadlines here.
"""

from coord_core.client.clocks import clock

__all__ = ["clock"]
