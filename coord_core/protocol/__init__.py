"""What clients ask and what the cluster answers: the vocabulary, without behaviour.

- `base`: what records of several files have in common.
- `commands`: what goes into the replicated log.
- `operations`: what a session's command does to a resource.
- `results`: what a command answers.
- `queries`: linearizable reads and their answers.
- `messages`: what client and server put into frames.
- `streams`: subscriptions, what is pushed to them, announcements; `elections`, `groups`, `topics`, `values`: a
  resource each.
- `members`: the nodes of a cluster.
- `ranges`: sets of request numbers, shared by the client that acknowledges and the machine that remembers.

All records are msgspec structs in array form: a field is known by its position.  Fields are only ever added at the end, with a
default, and tags are never reused, so that nodes of two versions read each other.
"""
