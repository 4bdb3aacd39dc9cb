"""A node as a process: sockets, the disk's thread, and the loop that drives the replica.

Nothing is decided here: `replica` decides, this room moves bytes and carries out effects.

- `node`: `serve`, a node as a process of its own.
- `server`: `Server`, put together and taken apart.
- `running`: a formed node at work.
- `loop`: the turns, the one owner of the replica.
- `writer`: the one thread that touches the storage.
- `handshake`: who may come in.
- `connections`: accepted connections until it is known who they are.
- `clients`: those that turned out to be clients.
- `peers`: the links between nodes, and their codec.
- `forming`: how nodes that know nothing become a cluster.
- `dial`: connections to other nodes until they have said Welcome.
- `silence`: connections whose other side has vanished.
- `tls`: certificates.
"""
