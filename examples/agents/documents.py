"""The documents and lessons that ship with the sample agents, and how any text is named."""

import csv
import io
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pypdf import PdfReader
from pypdf.errors import DependencyError

from examples.agents.contract import NotShipped, Refusal, Wish

_FOLDER = Path(__file__).resolve().parent.parent / "documents"
_MAX_PAGES = 500
_MAX_CHARACTERS = 200_000
_ENCRYPTED = "The PDF is encrypted; send it without a password"


@dataclass(frozen=True)
class Lesson:
    """One short lesson: its id, title, subject and Markdown text."""

    content_id: str
    title: str
    subject: str
    text: str


@cache
def shipped() -> dict[str, Path]:
    """Find the shipped documents by file name: PDF files and Markdown lessons."""
    found = sorted(_FOLDER.iterdir())
    return {path.name: path for path in found if path.suffix in {".pdf", ".md"}}


@lru_cache(maxsize=32)
def file_bytes(name: str) -> bytes:
    """Read a shipped document.

    Args:
        name: A plain file name; only shipped names are ever opened, so a path leads nowhere.

    Returns:
        The content of the file.

    Raises:
        NotShipped: There is no such document.
    """
    path = shipped().get(name)
    if path is None:
        raise NotShipped(f"There is no document {name!r}; these are there: {', '.join(shipped())}")
    return path.read_bytes()


def pdf_pages(content: bytes) -> list[str]:
    """Extract the text of each page of a PDF.

    Args:
        content: The PDF file.

    Returns:
        The text of the pages, in order.

    Raises:
        Refusal: The file is not a readable PDF, is encrypted or has too many pages.
    """
    try:
        return _pages(PdfReader(io.BytesIO(content)))
    except Refusal:
        raise
    # Only strong encryption needs what is not installed.
    except DependencyError as error:
        raise Refusal(_ENCRYPTED) from error
    # pypdf says of itself that a broken file may raise anything.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise Refusal(f"The file is not a readable PDF: {reason}") from error


def _pages(reader: PdfReader) -> list[str]:
    if reader.is_encrypted:
        raise Refusal(_ENCRYPTED)
    if len(reader.pages) > _MAX_PAGES:
        raise Refusal(f"The PDF has {len(reader.pages)} pages; at most {_MAX_PAGES} are read")
    return [page.extract_text().strip() for page in reader.pages]


@cache
def lessons() -> dict[str, Lesson]:
    """Read the shipped lessons by content id."""
    return {Path(name).stem: _lesson(name) for name in shipped() if Path(name).suffix == ".md"}


def _lesson(name: str) -> Lesson:
    text = file_bytes(name).decode()
    title, subject, body = (part.strip() for part in text.split("\n\n", 2))
    return Lesson(
        content_id=Path(name).stem,
        title=title.removeprefix("# "),
        subject=subject.removeprefix("Subject: "),
        text=f"{title}\n\n{body}",
    )


def lesson(content_id: str) -> Lesson:
    """Find a lesson.

    Raises:
        NotShipped: There is no such lesson.
    """
    found = lessons().get(content_id)
    if found is None:
        raise NotShipped(
            f"There is no content {content_id!r}; these are there: {', '.join(lessons())}",
        )
    return found


@cache
def glossary(language: str) -> dict[str, str]:
    """Read the shipped glossary from English to a language, which is a column of its file."""
    with (_FOLDER / "glossary.csv").open(encoding="utf-8", newline="") as file:
        return {row["english"]: row[language] for row in csv.DictReader(file)}


@lru_cache(maxsize=32)
def _file_text(name: str) -> str:
    content = file_bytes(name)
    if name.endswith(".md"):
        return lesson(Path(name).stem).text
    return "\n".join(pdf_pages(content))


class Material(Wish):
    """Text to work on: as it stands, as a shipped document or as a shipped lesson."""

    text: str | None = Field(None, min_length=1, max_length=_MAX_CHARACTERS)
    file: str | None = None
    content_id: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.text, self.file, self.content_id)) != 1:
            raise ValueError("give one of text, file or content_id")
        return self

    def read(self) -> str:
        """Give the text.

        Raises:
            NotShipped: The document or lesson does not exist.
        """
        if self.text is not None:
            return self.text
        if self.file is not None:
            return _file_text(self.file)
        return lesson(str(self.content_id)).text
