"""A seeded, deterministic simulation of whole clusters: real nodes, real client sessions, virtual time.

    from coord_core.testing.run import run
    run(7)                                          # one seed; raises Failure, which says how to run it again
    python -m coord_core.testing --seed 1 --seeds 200

Of a node's real parts all but the wire and the disk's format take part: `Replica` with its consensus and machine, and the client's
`ClientSession`.  The world around them is simulated, and may do its worst.

- `simulator`: virtual time, the event queue, the trace.
- `process`, `node`, `client`: processes that live, stop and die; the server's loop; the client's shell.
- `network`, `connection`, `disk`: what carries messages and keeps bytes, and how it fails.
- `mix`, `faults`: the character that a seed draws, and what goes wrong in it.
- `workload`, `participants` (with a `feed` each), `family`: what the clients do.
- `checkers`, `history`, `linearizability`, `models`: what must hold, at every step and over the whole history.
- `cluster`, `run`: one seed, put together and run.

And for the tests of programs that use coord, in real time: `pytest_plugin`, with `real_cluster`.
"""
