"""What must be true of the whole cluster, checked while it runs.

These see everything: all nodes, all disks, all clients, real time.  None of them asks a node whether it is right; each
compares what nodes did with what the others did, or with what clients were promised.

- `consensus`: Raft's five properties, durability on a quorum, votes.
- `applied`: the same entries with the same effects on every node, exactly once; queues in order; nothing held by the dead.
- `leases`: nobody expires before the promise made to it.
- `beliefs`: at any moment of real time at most one client believes that it holds a lock, or leads.
- `streams` (and `states`): all that happens to a resource is told, once and in order, or its state instead; epochs rise.
- `announcements`: no join is answered before everybody knows, nor withheld for longer than was asked.
"""
