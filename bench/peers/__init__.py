"""coord beside what else one would take: etcd, ZooKeeper, Redis and NATS, on the same machine, in the same minutes.

    make bench-peers                              # installs what is missing, about ten minutes
    python -m bench.peers --systems coord         # coord alone, nothing to install

- `system`: what a system is here: servers to start, and a `Client` that does what is measured.
- `coord`, `etcd`, `zookeeper`, `redis`, `nats`: one each, used as its Python client uses it best; the file says how.
- `install`: their programs and Python clients, in a folder of the build; nothing goes into the machine.
- `measures`: what is measured, as a client process does it; `worker` is that process.
- `rounds`: all systems up at once, and every round visits every system, so that a busy minute hits all of them.
- `elections`: leaders that resign and leaders that are killed.
- `report`: JSON lines, and tables with ratios.

The rule: a ratio holds within one run; figures differ from machine to machine and from minute to minute.
"""
