"""What is wrong with a configuration, in words: where, what was found, what is allowed."""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails

from orchestrator.config import TASK_BYTES, Rule, Settings
from orchestrator.endpoints import is_http
from orchestrator.errors import ConfigurationProblem
from orchestrator.models import Completion
from orchestrator.routing import kind_of, pattern_problem

KeyPath = tuple[str | int, ...]

# Up to the last @: what is wrong may be a password with characters that belong to URLs.
_PASSWORD = re.compile(r"(?<=//)\S*@")


def dotted(key: KeyPath) -> str:
    """``('routing_rules', 0, 'timeout')`` as ``routing_rules[0].timeout``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_MARK = re.compile(r"\[key\]$|function-[a-z]+\[")


def real_path(loc: KeyPath) -> KeyPath:
    """A validation error's location without the marks of validators and dictionary keys."""
    return tuple(part for part in loc if isinstance(part, int) or not _MARK.match(part))


FILE_SUFFIX = "_FILE"
"""Ends the name of a variable that names a file with a secret."""


def explain(error: ErrorDetails) -> str:
    """What was found and what is allowed, for one validation error."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(real_path(error["loc"]))
    if kind == "missing":
        return "is missing"
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    allowed = _PLAIN_WORDS.get(allowed, allowed)
    if kind in {"literal_error", "enum"}:
        allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ")
    elif kind == "string_pattern_mismatch":
        allowed = _PATTERN_WORDS.get(error["loc"][-1], f"text of the form {context['pattern']}")
    elif kind == "value_error":
        allowed = str(context["error"])
    place = real_path(error["loc"])
    # A secret that stands where a list or a mapping of them belongs is one all the same.
    secret = takes(place, SecretStr) or takes((*place, 0), SecretStr)
    value = error["input"]
    if kind == "value_error" and isinstance(value, dict):
        # The keys of a section are enough: a value may be a secret.
        value = list(value)
    found = "a value that is not shown" if secret else found_words(value)
    return f"found {found}; allowed: {allowed}"


_PLAIN_WORDS = {"an object": "a mapping", "a valid array": "a list"}
_PATTERN_WORDS: dict[str | int, str] = {
    "address": "embedded, or host:port",
    "path": "a path that begins with /",
    "[key]": "a name of letters, digits, '_', '-' and '.'",
    "target_agent": "a name of letters, digits, '_', '-' and '.'",
    "namespace": "a name of letters, digits, '_', '-' and '.'",
}


def found_words(value: Any) -> str:
    """A value as an error shows it: on one line, without a password."""
    text = _PASSWORD.sub("***@", json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - one line of a terminal


def _unknown_key(key: KeyPath) -> str:
    model = _model_at(key[:-1])
    if model is None:
        return "unknown key"
    close = difflib.get_close_matches(str(key[-1]), model.model_fields, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown key{hint}; allowed: {keys_of(model)}"


def keys_of(model: type[BaseModel]) -> str:
    """The keys that a block may have, for people."""
    return ", ".join(model.model_fields)


def _model_at(key: KeyPath) -> type[BaseModel] | None:
    """The model of a key's value: ('agents', 'x', 'health_check') is a HealthCheck."""
    alternatives = _alternatives(_type_at(key))
    return next((each for each in alternatives if _is_model(each)), None)


def takes(key: KeyPath, kind: type) -> bool:
    """Whether a key's value is of the kind; texts, secrets, paths and choices all count as str."""
    texts = (str, SecretStr, Path)
    return any(
        issubclass(each, texts if kind is str else kind)
        for each in _alternatives(_type_at(key))
        if isinstance(each, type)
    )


def names_secret_file(parts: Sequence[str]) -> bool:
    """Whether a variable's path is that of a secret, with ``_FILE`` after it."""
    *section, last = (int(part) if part.isdecimal() else part.lower() for part in parts)
    if not isinstance(last, str) or not last.endswith(FILE_SUFFIX.lower()):
        return False
    name = last[: -len(FILE_SUFFIX)]
    if name.isdecimal():
        return takes((*section, int(name)), SecretStr)
    return takes((*section, name), SecretStr) and _type_at((*section, last)) is None


def _type_at(key: KeyPath) -> Any:
    """The annotation of a key's value, None where the configuration has no such place."""
    annotation: Any = Settings
    for part in key:
        annotation = next(
            (inner for each in _alternatives(annotation) if (inner := _inside(each, part))), None
        )
    return annotation


def _inside(annotation: Any, part: str | int) -> Any:
    """The type of one part of a model, a dictionary or a tuple."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return field.annotation if field else None
    arguments = get_args(annotation)
    return {dict: arguments[1:2], tuple: arguments[:1]}.get(get_origin(annotation), (None,))[0]


def _alternatives(annotation: Any) -> Iterator[Any]:
    """What a union, optional or annotated type may be; the type of a literal's values."""
    kind = get_origin(annotation)
    if kind is Literal:
        yield from map(type, get_args(annotation))
    elif kind is None or kind in {dict, tuple}:
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _alternatives(argument)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def contradictions(
    settings: Settings, where: Callable[[KeyPath], str]
) -> Iterator[ConfigurationProblem]:
    """What no single value shows: rules and agents that do not fit together."""
    for name, agent in settings.agents.items():
        if not agent.instances:
            yield ConfigurationProblem(
                where(("agents", name, "instances")),
                "is missing; allowed: a list of {url: ...}, or a rule for the agent whose endpoint "
                "is a whole URL",
            )
    yield from _too_large(settings, where)
    seen: dict[tuple[str, str], int] = {}
    for index, rule in enumerate(settings.routing_rules):
        at: KeyPath = ("routing_rules", index)
        for key, problem in _wrong_with(rule, settings):
            yield ConfigurationProblem(where((*at, key)), problem)
        first = seen.setdefault((rule.pattern, kind_of(rule.pattern, rule.match)), index)
        if first != index:
            yield ConfigurationProblem(
                where((*at, "pattern")),
                f"'{rule.pattern}' is routed before, by routing_rules[{first}]",
            )


def _wrong_with(rule: Rule, settings: Settings) -> Iterator[tuple[str, str]]:
    """The keys of a rule that do not fit the agents that there are, and why."""
    if rule.target_agent not in settings.agents:
        known = ", ".join(settings.agents) or "none"
        problem = (
            f"found '{rule.target_agent}', which has no instances; allowed: one of agents "
            f"({known}), or an endpoint that is a whole URL"
        )
        yield "target_agent", problem
    if rule.completion is Completion.POLL and _behind_queue(settings, rule.target_agent):
        problem = (
            f"found 'poll'; allowed: callback, none (a queue of '{rule.target_agent}' has no "
            "Location to look at)"
        )
        yield "completion", problem
    for name in rule.fallback_agents:
        if name not in settings.agents:
            yield "fallback_agents", f"found '{name}'; allowed: {', '.join(settings.agents)}"
    if unreadable := pattern_problem(rule.pattern, rule.match):
        yield "pattern", unreadable


def _too_large(
    settings: Settings, where: Callable[[KeyPath], str]
) -> Iterator[ConfigurationProblem]:
    """Limits that only hold with a storage for large payloads."""
    if settings.payloads.storage.is_on:
        return
    for name in ("max_payload_bytes", "max_result_bytes"):
        value = getattr(settings.limits, name)
        if value > TASK_BYTES:
            yield ConfigurationProblem(
                where(("limits", name)),
                f"found {value}; allowed: at most {TASK_BYTES}, or more with payloads.storage",
            )


def _behind_queue(settings: Settings, agent: str) -> bool:
    known = settings.agents.get(agent)
    return known is not None and not all(is_http(each.url) for each in known.instances)
