"""What commands write: rich tables on a terminal, plain columns elsewhere."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import click
from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES: dict[str, str] = {
    "completed": "green",
    "healthy": "green",
    "closed": "green",
    "ok": "green",
    "running": "cyan",
    "queued": "blue",
    "half_open": "yellow",
    "degraded": "yellow",
    "warn": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "fail": "bold red",
    "open": "red",
    "forced_open": "bold red",
    "unhealthy": "red",
    "draining": "yellow",
}


class Column(NamedTuple):
    """A column.

    Args:
        heading: its name.
        width: what a plain one is filled up to, so that lines can be streamed.
        fit: what a terminal that is too narrow makes of it.
    """

    heading: str
    width: int = 0
    fit: Literal["whole", "fold", "cut"] = "cut"


def on_terminal() -> bool:
    """Whether a person reads along."""
    return sys.stdout.isatty()


def clean(value: Any) -> str:
    """A value as one line: no agent's text may steer the terminal."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    text = value if isinstance(value, str) else str(value)
    return "".join(each if each.isprintable() else " " for each in text)


def print_rows(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, headings: bool = True
) -> None:
    """Write a table; plain rows as they come."""
    if on_terminal():
        _print_table(columns, rows)
        return
    if headings:
        _print_plain(columns, [each.heading for each in columns])
    for row in rows:
        _print_plain(columns, row)


def _print_plain(columns: Sequence[Column], row: Sequence[Any]) -> None:
    cells = (clean(cell).ljust(column.width) for column, cell in zip(columns, row, strict=True))
    click.echo("  ".join(cells).rstrip())


def _print_table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for column in columns:
        table.add_column(
            column.heading,
            no_wrap=column.fit != "fold",
            overflow="fold" if column.fit == "fold" else "ellipsis",
            min_width=column.width if column.fit == "whole" else None,
        )
    for row in rows:
        table.add_row(*(_styled(cell) for cell in row))
    Console(highlight=False, markup=False).print(table)


def _styled(cell: Any) -> Text:
    text = clean(cell)
    return Text(text, STYLES.get(text, ""))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Write names and values, those that say something; a text of several lines stays so."""
    for name, value in fields.items():
        if value in (None, (), [], {}, ""):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        style = STYLES.get(text) if on_terminal() else None
        shown = click.style(clean(text), fg=None if style is None else style.rsplit(maxsplit=1)[-1])
        click.echo(f"{name:14}  {shown}")


def print_json(answer: BaseModel) -> None:
    """A model as the API answers it."""
    click.echo(answer.model_dump_json(indent=2))


def print_line(answer: BaseModel) -> None:
    """A model as one line of NDJSON."""
    click.echo(answer.model_dump_json())


def tell(text: str) -> None:
    """A word to people, beside the output."""
    click.echo(clean(text), err=True)
