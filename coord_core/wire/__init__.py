"""Bytes on a connection: frames and the encoding of messages, without I/O.

- `frames`: where one message ends and the next begins.
- `codec`: what a message's bytes mean.

A connection begins with `protocol.messages.MAGIC` from the side that dialled; from then on both sides send frames.  Who may say
what and when is the business of the two ends (`server.connections`, `server.peers`, `client`).
"""
