"""English prose taken apart: sections, sentences, words, terms and syllables."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_STOP_WORDS = Path(__file__).resolve().parent.parent / "documents" / "stop_words.txt"
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_VOWELS = re.compile(r"[aeiouy]+")
_HEADING_WORDS = 8
_TERM_LETTERS = 3


@dataclass(frozen=True)
class Section:
    """A heading with the text below it; level 0 is text before any heading."""

    heading: str
    level: int
    body: str


def words(text: str) -> list[str]:
    """Find the words of a text; numbers are none."""
    return _WORD.findall(text)


def syllables(word: str) -> int:
    """Estimate the syllables of an English word by its groups of vowels, less a silent final e."""
    lower = word.lower()
    silent = lower.endswith("e") and not lower.endswith(("le", "ee"))
    return max(1, len(_VOWELS.findall(lower)) - silent)


def outline(text: str) -> list[Section]:
    """Split a text at its headings.

    A heading is a Markdown heading, or a short line without final punctuation that stands between
    a finished sentence and a line that starts with a capital, as text extracted from a PDF has it.
    The first plain heading is the title (level 1), the others are below it (level 2).

    Args:
        text: Markdown or plain text; lines may be wrapped.

    Returns:
        The sections that have a heading or a body, in order.
    """
    found: list[Section] = []
    heading, level, body = "", 0, list[str]()
    lines = [line.strip() for line in text.splitlines()]
    for index, line in enumerate(lines):
        depth = _heading_level(lines, index, titled=level > 0)
        if depth == 0:
            body.append(line)
            continue
        found.append(Section(heading, level, "\n".join(body).strip()))
        heading, level, body = line.lstrip("# "), depth, []
    found.append(Section(heading, level, "\n".join(body).strip()))
    return [section for section in found if section.heading or section.body]


def _heading_level(lines: list[str], index: int, *, titled: bool) -> int:
    line = lines[index]
    if line.startswith("#"):
        return len(line) - len(line.lstrip("#"))
    if not line[:1].isupper() or line[-1] in ".!?:;," or len(line.split()) > _HEADING_WORDS:
        return 0
    before = next((lines[i] for i in range(index - 1, -1, -1) if lines[i]), ".")
    after = next((lines[i] for i in range(index + 1, len(lines)) if lines[i]), "")
    plain = before[-1] in ".!?:" and after[:1].isupper()
    return (2 if titled else 1) if plain else 0


def sentences(text: str) -> list[str]:
    """Find the sentences of a text, each on one line, without its headings."""
    return list(_sentences(text))


def _sentences(text: str) -> Iterator[str]:
    for section in outline(text):
        for paragraph in section.body.split("\n\n"):
            for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
                if words(sentence):
                    yield sentence


def terms_by_sentence(text: str) -> list[list[str]]:
    """Find what each sentence is about.

    Args:
        text: The prose.

    Returns:
        For each sentence its words in lower case, without stop words and short words; a plural in
        -s counts as its singular where the text has both.
    """
    rows = [[word.lower() for word in words(sentence)] for sentence in sentences(text)]
    seen = {word for row in rows for word in row}
    return [
        [
            word[:-1] if word.endswith("s") and word[:-1] in seen else word
            for word in row
            if len(word) >= _TERM_LETTERS and word not in _stop_words()
        ]
        for row in rows
    ]


@cache
def _stop_words() -> frozenset[str]:
    """Read the words that carry grammar rather than a subject."""
    return frozenset(_STOP_WORDS.read_text(encoding="utf-8").split())


def terms(text: str) -> Counter[str]:
    """Count the terms of a text."""
    return Counter(term for row in terms_by_sentence(text) for term in row)


def ranked(counts: Counter[str], limit: int) -> list[tuple[str, int]]:
    """Give the most frequent entries first, equals in alphabetical order."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]
