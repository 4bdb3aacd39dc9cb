"""Lists on stdout, in every format: a table, one document, a document a row, or tab-separated values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coord_core.cli.output import console, write_json, write_plain
from coord_core.cli.settings import Settings

Row = Mapping[str, Any]


def write_rows(
    settings: Settings,
    key: str,
    rows: Sequence[Row],
    columns: Mapping[str, Callable[[Row], object]],
    **more: object,
) -> None:
    """Write the rows; JSON has all of each under `key`, beside `more`, the other formats have the columns."""
    if settings.output == "json":
        write_json({key: rows, **more})
    elif settings.output == "jsonl":
        for row in rows:
            write_json(row)
    elif settings.output == "plain":
        write_plain([of(row) for of in columns.values()] for row in rows)
    else:
        _write_table(settings, rows, columns)


def _write_table(settings: Settings, rows: Sequence[Row], columns: Mapping[str, Callable[[Row], object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    for row in rows:
        cells = (of(row) for of in columns.values())
        # What clients say of themselves is text, not markup.
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    console(color=settings.color).print(table)
