"""Tables: by rich on a terminal, plain lines elsewhere, CSV where asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from ..io.tables import csv_text, printable

__all__ = ["print_csv", "print_table"]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on standard output; nothing for no rows.

    Parameters
    ----------
    columns : sequence of str
        Their headings.
    rows : sequence of sequences
        A value for each column; None is empty. Texts may be a stranger's: control characters are escaped, and markup of
        the terminal library is no markup here.
    """
    texts = [["" if value is None else printable(str(value)) for value in row] for row in rows]
    if not texts:
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in texts:
            table.add_row(*(Text(text) for text in row))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *texts]) for i in range(len(columns))]
    for row in [list(columns), *texts]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def print_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as CSV with a heading; texts of owners cannot become formulas of a spreadsheet.

    Parameters
    ----------
    columns : sequence of str
        Their headings.
    rows : sequence of sequences
        A value for each column; None is empty.
    """
    click.echo(csv_text(columns, rows).encode("utf-8", "backslashreplace").decode(), nl=False)
