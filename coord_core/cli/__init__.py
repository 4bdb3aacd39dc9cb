"""The `coord` command: a composition root, one file a noun.

- `main`: the command tree, the global options, and how an error becomes one line and an exit code.
- `server`, `config`, `dev`, `status`, `lock`: the nouns.
- `settings`, `output`, `durations`, `exits`: what the nouns share.
- `nodes`: the local nodes that `coord dev` runs; `child`, `guard` and `processes`: the command that `coord lock` runs.

`coord --help` must be quick: a noun imports rich, asyncio and the other rooms inside the functions that need them.
"""
