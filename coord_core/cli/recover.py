"""`coord recover`: a new cluster out of what one node has left."""

from pathlib import Path

import click

from coord_core.cli.output import write_json
from coord_core.cli.settings import Settings, output_option, pass_settings


@click.command(
    epilog="""\b
Example:
  coord recover --from /var/lib/coord --to /var/lib/coord-2
  coord server --name n1 --data-dir /var/lib/coord-2 --listen 10.0.0.1:7400"""
)
@click.option("--from", "source", required=True, type=click.Path(path_type=Path), help="Data directory of the node that is left.")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="Data directory to make; empty or not there.")
@output_option
@pass_settings
def recover(settings: Settings, source: Path, target: Path) -> None:
    """Make a new cluster out of one node's directory, when the majority of the old one is gone for good.

    Everything in that node's log is kept: sessions, locks, queues, values, fencing tokens.  What only the lost nodes had is lost.

    So take the node that has most of the log, and never start one of the others again.  The new cluster has one node and an id
    of its own: others join it on empty directories, and programs that were connected to the old one are to be started again.
    """
    from coord_core.server.recovery import recover as recover_directory

    found = recover_directory(source, target)
    if settings.output in ("json", "jsonl"):
        write_json(
            {
                "name": found.name,
                "former_cluster": found.former_cluster,
                "cluster": found.cluster,
                "index": found.index,
                "committed": found.committed,
                "sessions": found.sessions,
                "lost": list(found.lost),
                "doubt": found.doubt,
            }
        )
        return
    what = f"entries up to {found.index}, {found.sessions} session{'' if found.sessions == 1 else 's'}"
    settings.note(f"{target} is cluster {found.cluster} with node {found.name} alone: {what}")
    if found.index > found.committed:
        settings.note(f"{found.index - found.committed} of the entries were not known to be committed; they count now")
    if found.doubt:
        settings.note(f"warning: {found.doubt}; where the directory of another node is left, take that one")
    if found.lost:
        settings.note(f"never start again: {', '.join(found.lost)}, and {found.name} on {source}")
    settings.note(f"next: coord server --name {found.name} --data-dir {target} --listen HOST:PORT")
