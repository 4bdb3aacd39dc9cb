"""The client: one way into the cluster for programs.

- `session`: what is true for a holder, and what to send when; pure.  Its parts: `calls`, `subscriptions`, `requests`, `route`,
  `settings`.
- `aio`: the one client, on asyncio.  `sync`: a facade over it.
- `lock`, `value`, `election`, `group`, `topic` (with `consuming`): the resources; `watch`, `feed`, `listeners`: how they are told
  what happens.
- `sync_...`: their blocking forms.  `status`: what the nodes say of themselves.
- `url`: how to say where the cluster is.  `clocks`: the clock of all deadlines here.
"""

from coord_core.client.clocks import clock

__all__ = ["clock"]
