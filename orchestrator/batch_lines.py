"""The tasks of a file, one JSON object a line, with what is wrong by the number of its line."""

import sys
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import ValidationError

from orchestrator.batches import MAX_ITEMS, BadItem
from orchestrator.models import TaskRequest


@dataclass(frozen=True)
class Lines:
    """A file of tasks.

    Args:
        name: of the file.
        content: as it is sent.
        numbers: of the lines that hold a task, in their order; the first line is 1.
        wrong: what is no task, by its index among those.
    """

    name: str
    content: bytes
    numbers: tuple[int, ...]
    wrong: tuple[BadItem, ...]

    def number_of(self, index: int) -> int:
        """The line of an item."""
        return self.numbers[index] if index < len(self.numbers) else index + 1


def read_lines(file: str) -> Lines:
    """Read and check a file; ``-`` is standard input.

    Raises:
        click.UsageError: it cannot be read, or holds no task, or more than a batch takes.
    """
    name = "standard input" if file == "-" else file
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror}.") from None
    content = content.removeprefix(b"\xef\xbb\xbf")
    held = [(n, line) for n, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    if not held:
        raise click.UsageError(f'{name} holds no task; one a line: {{"pattern": "...", ...}}')
    if len(held) > MAX_ITEMS:
        raise click.UsageError(
            f"{name} holds {len(held):,} tasks, a batch takes {MAX_ITEMS:,}; split it, such as by: "
            f"split -l {MAX_ITEMS}"
        )
    wrong = tuple(bad for index, (_, line) in enumerate(held) if (bad := _wrong(index, line)))
    return Lines(name, content, tuple(number for number, _ in held), wrong)


def _wrong(index: int, line: bytes) -> BadItem | None:
    try:
        TaskRequest.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        return BadItem(index=index, field=field, message=first["msg"])
    return None
