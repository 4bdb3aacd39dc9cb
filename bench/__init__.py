"""How fast a fresh three-node cluster on this machine is, and what a command costs each party.

- `__main__`: `python -m bench`: rounds, medians, the table.
- `cluster`: a fresh cluster by `coord dev`, thrown away afterwards.
- `workload`: one client process that keeps a number of handles busy.
- `failover`: how long nobody can write when the leader dies.
- `processes`: CPU time of processes, from /proc.
- `peers`: coord beside etcd, ZooKeeper, Redis and NATS in the same rounds; and all its figures alone.
- `topics`: messages against value writes, and what a topic costs a node's memory.
- `apply`, `snapshot_stall`: the state machine alone, and the longest steps of a large one.
- `peers_adapter`: the client in the form that another comparison takes.

Figures differ from machine to machine and from minute to minute: compare only what was taken in one run.
"""
