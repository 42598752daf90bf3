"""Dockerfile and .dockerignore, read as their builder reads them."""

import re
from fnmatch import fnmatchcase

from tests.support.stack import ROOT

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions with their arguments, each on one line."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [
        (name, rest)
        for name, _, rest in (line.partition(" ") for line in joined.splitlines())
        if name
    ]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, FROM first."""
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def reaches_the_builder(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last rule that matches it or a parent."""
    parts = path.split("/")
    ancestors = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    allowed = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!")
        if any(_matches(ancestor, pattern) for ancestor in ancestors):
            allowed = rule.startswith("!")
    return allowed


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        tail = pattern.removeprefix("**/")
        return fnmatchcase(path.rpartition("/")[2], tail)
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
