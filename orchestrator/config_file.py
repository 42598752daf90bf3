"""Reading config.yaml: variables, overrides from the environment, and errors with their place."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.config import Settings
from orchestrator.config_problems import (
    FILE_SUFFIX,
    KeyPath,
    contradictions,
    dotted,
    explain,
    found_words,
    keys_of,
    names_secret_file,
    real_path,
    takes,
)
from orchestrator.errors import ConfigurationError, ConfigurationProblem

ENV_PREFIX = "ORCHESTRATOR_"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\{)")

_INDEX = re.compile(r"[0-9]{1,6}")


def load(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read, complete and check a configuration.

    Args:
        path: the YAML file; None takes the defaults and the environment alone.
        environ: for ``${VAR:-default}`` in values, and for ``ORCHESTRATOR_A__B`` overrides.

    Raises:
        ConfigurationError: with every problem that was found.
    """
    document = _Document(path, environ)
    document.read()
    document.override()
    document.connect()
    try:
        # JSON mode: strict types, and yet lists for tuples and texts for enumerations.
        text = json.dumps(document.data, ensure_ascii=False)
        settings = Settings.model_validate_json(text.encode())
    except UnicodeEncodeError:
        raise _single(document.where(()), "a value holds half a character: not UTF-8") from None
    except ValidationError as error:
        details = error.errors(include_url=False)
        document.problems += [
            ConfigurationProblem(document.where(real_path(each["loc"])), explain(each))
            for each in details
        ]
        raise ConfigurationError(document.problems) from None
    document.problems += contradictions(settings, document.where)
    if document.problems:
        raise ConfigurationError(document.problems)
    return settings


class _Document:
    """The file's data, and for every key the place it came from."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.data: Any = {}
        self.places: dict[KeyPath, str] = {}
        self.problems: list[ConfigurationProblem] = []

    def where(self, key: KeyPath) -> str:
        """``config.yaml:12: load_balancing.strategy``; the nearest known line for a missing key."""
        known = key
        while known and known not in self.places:
            known = known[:-1]
        place = self.places.get(known, str(self.path) if self.path else "defaults")
        return f"{place}: {dotted(key)}" if key else place

    def read(self) -> None:
        if self.path is None:
            return
        try:
            text = self.path.read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise _single(str(self.path), f"cannot be read: {reason}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise _single(f"{self.path}:{line}", f"not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise _single(str(self.path), f"not YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise _single(str(self.path), f"nested deeper than {_MAX_DEPTH} levels") from None
        if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _NULL):
            return
        if not isinstance(root, yaml.MappingNode):
            raise _single(f"{self.path}:1", "found no mapping; allowed: " + keys_of(Settings))
        self.data = self._plain(root, ())

    def _plain(self, node: yaml.Node, key: KeyPath) -> Any:
        place = f"{self.path}:{node.start_mark.line + 1}"
        self.places.setdefault(key, place)
        # Aliases may repeat, or hold, what they stand in.
        if len(key) > _MAX_DEPTH:
            raise _single(place, f"nested deeper than {_MAX_DEPTH} levels, or within itself")
        if len(self.places) > _MAX_VALUES:
            raise _single(place, f"more than {_MAX_VALUES:,} values, aliases counted each time")
        if node.tag not in _KNOWN_TAGS:
            self.problems.append(
                ConfigurationProblem(self.where(key), f"found the tag {node.tag}; allowed: none")
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*key, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - YAML has three kinds of nodes
        return self._scalar(node, key)

    def _mapping(self, node: yaml.MappingNode, key: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            place = f"{self.path}:{name_node.start_mark.line + 1}"
            if not isinstance(name_node, yaml.ScalarNode):
                self.problems.append(
                    ConfigurationProblem(
                        f"{place}: {dotted(key)}" if key else place, "found a key that is not text"
                    )
                )
                continue
            name = name_node.value
            at = (*key, name)
            if name in result:
                first = self.places[at]
                self.problems.append(
                    ConfigurationProblem(f"{place}: {dotted(at)}", f"given before, at {first}")
                )
            self.places[at] = place
            result[name] = self._plain(value_node, at)
        return result

    def _scalar(self, node: yaml.ScalarNode, key: KeyPath) -> Any:
        text = self._substituted(node.value, key)
        tag = node.tag
        if text != node.value:
            # A variable's value has the type of its place: ${PORT:-8000} is a number, quoted or
            # not, and a key of digits is a text.
            tag = _resolved_tag(text)
            if takes(key, str) and (tag != _NULL or node.style is not None):
                return text
        if tag not in _JSON_TAGS:
            return text
        try:
            value = _construct(tag, text, node)
        except (ValueError, LookupError, OverflowError):
            return text
        return text if isinstance(value, int) and value.bit_length() > _MAX_BITS else value

    def _substituted(self, text: str, key: KeyPath) -> str:
        def value(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if match[0] == "$$":
                return "$"
            if name is None or "${" in (default or ""):
                self.problems.append(
                    ConfigurationProblem(
                        self.where(key),
                        f"found {found_words(text)}; allowed: ${{NAME}}, ${{NAME:-default}}, and "
                        "$$ for a dollar sign",
                    )
                )
                return ""
            found = self.environ.get(name) or default
            if found is None:
                self.problems.append(
                    ConfigurationProblem(
                        self.where(key),
                        f"environment variable {name} is not set; set it, or write "
                        f"${{{name}:-default}}",
                    )
                )
                return ""
            return found

        return _VARIABLE.sub(value, text)

    def override(self) -> None:
        """Apply ``ORCHESTRATOR_A__B=value``; list items by their number, keys in any case.

        ``ORCHESTRATOR_A__B_FILE`` names a file with the value, where that is a secret.
        """
        for variable, given in sorted(self.environ.items(), key=_by_number):
            if not variable.startswith(ENV_PREFIX) or "__" not in variable:
                continue
            parts = variable.removeprefix(ENV_PREFIX).split("__")
            place = f"environment variable {variable}"
            text: str | None = given
            if names_secret_file(parts):
                parts = [*parts[:-1], parts[-1][: -len(FILE_SUFFIX)]]
                text = self._secret(place, given)
            if text is None:
                continue
            try:
                value = yaml.safe_load(text) if text else ""
                json.dumps(value)
            except (yaml.YAMLError, TypeError, ValueError, LookupError, RecursionError):
                value = text
            key = self._assign(parts, value)
            if (
                key
                and takes(key, str)
                and not (_resolved_tag(text) == _NULL or _is_quoted(text, value))
            ):
                self._assign(parts, text)
            if key is None:
                self.problems.append(
                    ConfigurationProblem(
                        place, "names a place that the configuration does not have"
                    )
                )
            else:
                self.places = {k: v for k, v in self.places.items() if k[: len(key)] != key}
                self.places[key] = place
                for length in range(1, len(key)):
                    self.places.setdefault(key[:length], place)

    def _secret(self, place: str, path: str) -> str | None:
        """What is in a file of a secret, without the end of its line; None where there is none."""
        if not path:
            return None
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            problem = f"the file {path} cannot be read: {reason}"
            self.problems.append(ConfigurationProblem(place, problem))
            return None

    def connect(self) -> None:
        """Where no address is given, take the connection that the SDK's environment tells."""
        section = self.data.get("temporal") or {}
        if not isinstance(section, dict) or section.get("address"):
            return
        from orchestrator.engine import standard  # noqa: PLC0415 - few need it, and the SDK is large

        profile = section.get("profile")
        source = standard.telling(self.environ, profile if isinstance(profile, str) else None)
        if source is None:
            return
        try:
            found = standard.connection(self.environ, profile)
        except ValueError as error:
            self.problems.append(ConfigurationProblem(source, str(error)))
            return
        self.places |= {("temporal", key): f"{source}" for key in found if key not in section}
        self.data["temporal"] = found | section

    def _assign(self, parts: list[str], value: Any) -> KeyPath | None:
        """Put the value where the parts lead and return its key, or None if they lead nowhere."""
        target, key = self.data, ()  # type: Any, KeyPath
        for index, part in enumerate(parts):
            step: str | int
            if isinstance(target, list):
                if not _INDEX.fullmatch(part) or int(part) > len(target):
                    return None
                step = int(part)
                if step == len(target):
                    target.append({})
            elif isinstance(target, dict):
                step = next((name for name in target if name.lower() == part.lower()), part.lower())
            else:
                return None
            key = (*key, step)
            if index == len(parts) - 1:
                target[step] = value
            elif isinstance(target, list):
                target = target[int(step)]
            else:
                target = target.setdefault(step, [] if _INDEX.fullmatch(parts[index + 1]) else {})
        return key


_MAX_DEPTH = 30
_MAX_VALUES = 100_000
_MAX_BITS = 64
_TAG = "tag:yaml.org,2002:"
_NULL = f"{_TAG}null"
_JSON_TAGS = {_TAG + name for name in ("null", "bool", "int", "float")}
# Plain values that look like dates, `=` and `<<` have tags of their own, and are texts here.
_KNOWN_TAGS = _JSON_TAGS | {
    _TAG + name for name in ("str", "map", "seq", "timestamp", "value", "merge")
}


def _by_number(variable: tuple[str, str]) -> list[tuple[int, str]]:
    """Sorts the variables of item 2 before those of item 10."""
    parts = variable[0].split("__")
    return [(int(part), "") if _INDEX.fullmatch(part) else (-1, part) for part in parts]


def _is_quoted(text: str, value: Any) -> bool:
    return isinstance(value, str) and text.startswith(('"', "'"))


def _resolved_tag(text: str) -> str:
    loader = yaml.SafeLoader("")
    return str(loader.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]


def _construct(tag: str, text: str, node: yaml.ScalarNode) -> Any:
    loader = yaml.SafeLoader("")
    return loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark, node.end_mark))


def _single(where: str, what: str) -> ConfigurationError:
    return ConfigurationError([ConfigurationProblem(where, what)])
