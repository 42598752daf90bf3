"""What differs between two configurations, and which of it a running process takes over.

Everything that is not in TAKEN_OVER is used at a process's start alone, and needs another.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from orchestrator.config import Rule, Settings

TAKEN_OVER: dict[str, frozenset[str] | None] = {
    "agents": None,
    "routing_rules": None,
    "load_balancing": None,
    "priority_queue": None,
    "coalescing": None,
    "error_recovery": None,
    "dead_letters": None,
    "rate_limiting": frozenset({"enabled", "default_rate", "burst_size", "mode"}),
    "callbacks": frozenset({"secret", "secrets", "allow", "ports", "retry_delays", "timeout"}),
    "limits": frozenset({"max_payload_bytes", "max_result_bytes", "max_batch_bytes"}),
    "security": frozenset({"quotas"}),
}
"""The sections that a running process takes over: whole, or these keys of them."""
REASONS = {
    "agent": "its name, host and port are taken at the start",
    "temporal": "the connection to the engine is made at the start",
    "message_queue": "the connection to the broker is made at the start",
    "rate_limiting.redis": "the connection to Redis is made at the start",
    "callbacks.max_connections": "the worker of callbacks gets its slots at the start",
    "completions": "the URLs that agents hold now are signed by it",
    "monitoring": "the port of the metrics is taken at the start",
    "limits": "the server of the API is set up at the start",
    "security": "who is asked for a key is settled at the start; keys in keys_file are not",
    "storage": "the files in it are open",
    "payloads": "keys and storage are opened with the connection to the engine",
    "logging": "the log is set up at the start",
}
OTHER_REASON = "it is used at the start alone"
VERSION_DIGITS = 12


def changes(before: Settings, after: Settings) -> tuple[str, ...]:
    """The keys that differ, dotted and sorted, never with their values; rules by their pattern."""
    return tuple(sorted(set(_differences(before, after, ()))))


def _differences(before: Any, after: Any, key: tuple[str, ...]) -> Iterator[str]:
    if before == after:
        return
    first, second = _parts(before), _parts(after)
    if first is None or second is None or first == second:
        # Neither has parts; or they are the same rules in another order.
        yield ".".join(key)
        return
    for name in {**first, **second}:
        path = (*key, name)
        if name in first and name in second:
            yield from _differences(first[name], second[name], path)
        else:
            yield f"{'.'.join(path)} ({'gone' if name in first else 'new'})"


def _parts(value: Any) -> Mapping[str, Any] | None:
    """What is compared by itself, by name."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, tuple) and all(isinstance(each, Rule) for each in value):
        # Of two rules that are alike the first holds.
        return {rule.pattern: rule for rule in reversed(value)}
    return value if isinstance(value, dict) else None


def needs_restart(changed: tuple[str, ...]) -> dict[str, str]:
    """Of changed keys those that a running process does not take over, and why not."""
    return {key: _reason(key) for key in changed if not _is_taken_over(key)}


def _is_taken_over(key: str) -> bool:
    section, _, rest = key.partition(".")
    if section not in TAKEN_OVER:
        return False
    fields = TAKEN_OVER[section]
    return fields is None or rest.partition(".")[0] in fields


def _reason(key: str) -> str:
    found = (name for name in REASONS if key == name or key.startswith(f"{name}."))
    return REASONS[name] if (name := next(found, None)) else OTHER_REASON


def settled(running: Settings, wanted: Settings) -> Settings:
    """The wanted settings, but what needs a restart as it runs."""
    sections = {name: _settled(name, running, wanted) for name in Settings.model_fields}
    # It matters which were given: a block that is left out means other things than its defaults.
    found = Settings.model_construct(_fields_set=set(wanted.model_fields_set), **sections)
    return found.with_logins_of(wanted)


def _settled(name: str, running: Settings, wanted: Settings) -> Any:
    if name not in TAKEN_OVER:
        return getattr(running, name)
    after = getattr(wanted, name)
    fields = TAKEN_OVER[name]
    if fields is None:
        return after
    values = {
        each: getattr(after if each in fields else getattr(running, name), each)
        for each in type(after).model_fields
    }
    return type(after).model_construct(_fields_set=set(after.model_fields_set), **values)


def version_of(settings: Settings) -> str:
    """A short hash of what is to be the same in all processes, its secrets left out.

    Ports, addresses and the like are each process's own.
    """
    shared = {
        name: _parts_of(getattr(settings, name), fields) for name, fields in TAKEN_OVER.items()
    }
    # Without the block no agent has a limit, unlike with an empty one.
    shared["rate_limiting"]["given"] = "rate_limiting" in settings.model_fields_set
    return hashlib.sha256(to_json(shared)).hexdigest()[:VERSION_DIGITS]


def _parts_of(section: Any, fields: frozenset[str] | None) -> Any:
    return section if fields is None else section.model_dump(mode="json", include=set(fields))
