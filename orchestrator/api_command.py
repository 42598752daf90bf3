"""What the commands share that speak to the API: where it is, patience, and plain ends."""

import getpass
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

import click

from orchestrator.cli import config_option, plain_errors, settings_of
from orchestrator.client import ApiError, ClientError, OrchestratorClient, StillOpen
from orchestrator.client.connection import DEFAULT_RETRY_SECONDS, KEY_VARIABLE
from orchestrator.config import Settings
from orchestrator.display import tell
from orchestrator.exits import EXPLAINED, Exit, code_of

RETRY_SECONDS = 5.0
FOREVER = math.inf
_TYPED = click.core.ParameterSource.COMMANDLINE
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - to be replaced


@dataclass(frozen=True)
class Api:
    """How the API is reached.

    Args:
        url: as given; None takes that of the configuration.
        config_path: the configuration, where one was named.
        retry_for: seconds for which what failed is sent again; None: 5, and longer for waits.
    """

    url: str | None
    config_path: Path | None
    retry_for: float | None

    def client(self, *, patient: bool = False) -> OrchestratorClient:
        """A client; a ``patient`` one outlasts a restart of the API.

        Raises:
            ConfigurationError: the configuration, which tells the URL, is wrong.
            click.UsageError: the URL, or the key, is none.
        """
        default = DEFAULT_RETRY_SECONDS if patient else RETRY_SECONDS
        seconds = default if self.retry_for is None else self.retry_for
        try:
            return OrchestratorClient(self.address(), retry_for=seconds)
        except ValueError as error:
            raise click.UsageError(f"{error} (--url, ORCHESTRATOR_URL)") from None

    def address(self) -> str:
        """The API's URL."""
        return self.url or url_of(settings_of(self.config_path, environment()))


def environment() -> dict[str, str]:
    """This process's environment, ORCHESTRATOR_HOST and _PORT as values of the configuration."""
    found = dict(os.environ)
    for name in ("HOST", "PORT"):
        if value := found.get(f"ORCHESTRATOR_{name}"):
            found[f"ORCHESTRATOR_AGENT__{name}"] = value
    return found


def url_of(settings: Settings) -> str:
    """Where the API of a configuration listens, as this machine reaches it."""
    host = _ANY_ADDRESS.get(settings.agent.host, settings.agent.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{settings.agent.port}"


def api_command(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that gets ``api`` and ``as_json``, and ends plainly whatever comes."""

    @wraps(command)
    def wrapped(
        *args: Any, url: str | None, config_path: Path | None, retry_for: float | None, **kw: Any
    ) -> Any:
        return command(*args, api=Api(url, config_path, retry_for), **kw)

    wrapped.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{EXPLAINED}"
    return url_option(config_option(retry_option(json_option(plain_ends(wrapped)))))


def url_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--url``."""
    return click.option(
        "--url",
        envvar="ORCHESTRATOR_URL",
        show_envvar=True,
        help="Of the API. [default: by agent.host and agent.port of the configuration]",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="As the API answers.")(command)


def retry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--retry-for``."""
    return click.option(
        "--retry-for",
        type=Seconds(),
        help="Seconds for which a request that failed is sent again, where that is safe. "
        f"[default: {RETRY_SECONDS:g}, {DEFAULT_RETRY_SECONDS:g} in a wait]",
    )(command)


def wait_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--wait [SECONDS]``: None without it, FOREVER without a number."""
    return click.option(
        "--wait",
        is_flag=False,
        flag_value=FOREVER,
        default=None,
        type=Seconds(forever=True),
        metavar="[SECONDS]",
        help=f"{text} As long as it takes, without a number.",
    )


def patience_of(wait: float | None) -> float | None:
    """What the client is told: None is as long as it takes."""
    return None if wait == FOREVER else wait


class Seconds(click.ParamType[float]):
    """A duration: a number that is not negative.

    Args:
        forever: takes infinity too, as the option without a number gives.
    """

    name = "seconds"

    def __init__(self, *, forever: bool = False) -> None:
        self._forever = forever

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (seconds >= 0 and (self._forever or math.isfinite(seconds))):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


class Id(click.ParamType[str]):
    """An id or a name; often it comes from a variable of a script, which may be empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id."""
        if str(value).strip() in {"", ".", ".."}:
            self.fail(f"{value!r} names nothing; is a variable empty?", param, ctx)
        return str(value)


class Document(click.ParamType[Mapping[str, Any]]):
    """A JSON object: a file's name, the JSON itself, or ``-`` for standard input."""

    name = "file|json|-"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Mapping[str, Any]:
        """The object."""
        if isinstance(value, Mapping):
            return value
        try:
            found = json.loads(self._text(value), parse_constant=_no_json)
        except OSError as error:
            self.fail(f"{value!r} is no JSON object, and no file: {error.strerror}.", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"{_named(value)} is not JSON: {error}.", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{_named(value)} must hold an object, such as {{}}.", param, ctx)
        return found

    @staticmethod
    def _text(value: str) -> str:
        if value == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        if value.lstrip()[:1] in {"{", "["}:
            return value
        return Path(value).read_bytes().decode("utf-8-sig")


def _named(value: str) -> str:
    return {"-": "Standard input"}.get(value, repr(value if len(value) < 80 else value[:79] + "…"))  # noqa: PLR2004


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def plain_ends(command: Callable[..., Any]) -> Callable[..., Any]:
    """End with one clear line and an exit code, whatever comes."""

    @plain_errors
    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except ClientError as error:
            tell(f"orchestrator: {explained(error)}")
            sys.exit(code_of(error))
        except KeyboardInterrupt:
            sys.exit(Exit.INTERRUPTED)
        except BrokenPipeError:
            silence()
            sys.exit(Exit.READER_GONE)
        except OSError as error:
            tell(f"orchestrator: {error}")
            silence()
            sys.exit(Exit.FAILED)
        except ValueError as error:
            # What JSON cannot hold, such as half of a character.
            raise click.UsageError(str(error)) from None

    return wrapped


@contextmanager
def goes_on(words: str) -> Iterator[None]:
    """Around a wait, and what announces it: say how to look at what goes on without it."""
    try:
        yield
    except (KeyboardInterrupt, StillOpen):
        tell(words)
        raise


def is_for_subcommand(context: click.Context) -> bool:
    """Whether a subcommand does the work.

    Raises:
        click.UsageError: options stand before it, where they would be passed over.
    """
    if context.invoked_subcommand is None:
        return False
    if any(context.get_parameter_source(name) is _TYPED for name in context.params):
        raise click.UsageError(f"Put the options after {context.invoked_subcommand}.")
    return True


def user() -> str:
    """Who gives an order, for whoever looks at it later."""
    try:
        return getpass.getuser()[:100]
    except (KeyError, OSError):
        return "command line"


def silence() -> None:
    """Have what is left of the output go nowhere, so that the end of the process does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def explained(error: ClientError) -> str:
    """An error with what the API says beside its detail."""
    if not isinstance(error, ApiError):
        return str(error)
    words = [error.detail]
    if isinstance(listed := error.problem.get("errors"), list) and "bad_items" not in error.problem:
        words.extend(_problem(each) for each in listed[:5])
    if error.status == HTTPStatus.UNAUTHORIZED and not os.environ.get(KEY_VARIABLE):
        words.append(f"Put the key into {KEY_VARIABLE}.")
    if error.retry_after is not None:
        words.append(f"Again in {error.retry_after:g} s.")
    return " ".join(word for word in words if word not in words[0] or word is words[0])


def _problem(each: Any) -> str:
    if not isinstance(each, dict):
        return str(each)
    return ": ".join(str(each[name]) for name in ("field", "message") if each.get(name))
