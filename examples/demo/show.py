"""What the demo looks like."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table


@dataclass
class Claim:
    """Something that was said, and what was seen."""

    said: str
    seen: str
    holds: bool


class Show:
    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.claims: list[Claim] = []
        self._step = 0

    def open(self) -> None:
        self.console.print(
            Panel.fit(
                "[bold]coord[/] keeps Celery tasks single, whatever dies.\n"
                "Three nodes, two workers, and a [red]kill -9[/] for each of them in turn.",
                border_style="cyan",
                padding=(0, 2),
            )
        )

    def step(self, title: str, text: str) -> None:
        """Begin a step: what is about to be tried."""
        self._step += 1
        self.console.print(f"\n[bold cyan]{self._step}[/]  [bold]{title}[/]")
        self.console.print(Padding(f"[dim]{text}[/]", (0, 0, 0, 3)))

    def say(self, text: str) -> None:
        self.console.print(f"   {text}")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        with self.console.status(f"[cyan]{text}[/]", spinner_style="cyan"):
            yield

    def claim(self, said: str, seen: str, holds: bool) -> None:
        """Show at once whether a claim held; the table at the end has it again."""
        self.claims.append(Claim(said, seen, holds))
        self.console.print(f"   {_mark(holds)} {seen}")

    def close(self, seconds: float) -> bool:
        """Print the table; return whether everything held."""
        table = Table(
            title="What was said, and what was seen", title_style="bold", title_justify="left", header_style="dim", box=None
        )
        for heading in ("", "said", "seen"):
            table.add_column(heading)
        for claim in self.claims:
            table.add_row(_mark(claim.holds), claim.said, claim.seen)
        self.console.print(table)
        held = all(claim.holds for claim in self.claims)
        verdict = "[bold green]All of it held[/]" if held else "[bold red]Not all of it held[/]"
        self.console.print(f"\n{verdict} [dim]({seconds:.0f} s)[/]")
        return held


def _mark(holds: bool) -> str:
    return "[green]✓[/]" if holds else "[red]✗[/]"
