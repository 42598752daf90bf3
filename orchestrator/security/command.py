"""``orchestrator keys``: make, list, rotate and revoke API keys."""

import functools
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, ValidationError

from orchestrator.cli import config_option, plain_errors, settings_of
from orchestrator.display import Column, print_json, print_rows
from orchestrator.errors import StartupError
from orchestrator.security.callers import Scope
from orchestrator.security.key_file import changing, read, write
from orchestrator.security.keys import (
    ALL_TENANTS,
    Key,
    KeyRing,
    Previous,
    digest_of,
    is_tenant,
    new_secret,
    now,
)

_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = (
    Column("id", 12, fit="whole"),
    Column("name", 20),
    Column("tenant", 16),
    Column("scopes", 24),
    Column("state", 8),
    Column("expires", 16),
)


class ShownKey(BaseModel):
    """A key as it is shown: ``key`` is the secret, once."""

    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    state: str
    created_at: datetime
    expires_at: datetime | None
    rotated_at: datetime | None
    key: str | None = None


class ShownKeys(BaseModel):
    """The answer of ``keys list --json``."""

    keys: tuple[ShownKey, ...]


def shown(key: Key, secret: str | None = None) -> ShownKey:
    """What may be shown of a key."""
    return ShownKey(
        id=key.id,
        name=key.name,
        tenant=key.tenant,
        scopes=key.scopes,
        state=key.state(datetime.now(UTC)),
        created_at=key.created_at,
        expires_at=key.expires_at,
        rotated_at=key.rotated_at,
        key=secret,
    )


class _Duration(click.ParamType[timedelta]):
    """Such as 90d, 12h, 30m, 45s."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(str(value))
        if not found:
            self.fail(f"{value!r} is no duration; write 90d, 12h, 30m or 45s", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _json_option(text: str) -> Callable[..., Any]:
    """``--json``, as ``as_json``: nothing of this comes from the API."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def _file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--file`` and ``--config``, as ``path``: that of the keys file."""

    @functools.wraps(command)
    def with_path(file: Path | None, config_path: Path | None, **others: Any) -> Any:
        return command(path=_path(file, config_path), **others)

    option = click.option(
        "--file",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The keys file. [default: security.keys_file of the configuration]",
    )
    return config_option(option(with_path))


def _path(file: Path | None, config_path: Path | None) -> Path:
    found = file or settings_of(config_path).security.keys_file
    if found is None:
        raise StartupError(
            "Which file? Set security.keys_file in the configuration, or give --file"
        )
    return found


def _checked(_context: click.Context, _option: click.Parameter, tenant: str) -> str:
    if tenant != ALL_TENANTS and not is_tenant(tenant):
        raise click.UsageError(
            "--tenant takes 1 to 64 letters, digits and _.@:- ; or '*' for all tenants"
        )
    return tenant


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """API keys: who may use the API, for which tenant, to do what.

    A key is shown once, when it is made; the file holds only hashes. API processes notice a changed
    file within a second.

    \b
    Examples:
      orchestrator keys create --name "acme backend" --tenant acme --scope submit --scope read
      orchestrator keys create --name ops --tenant '*' --scope read --scope operate --expires 90d
      orchestrator keys list
      orchestrator keys rotate key_5f0c2a9b --grace 24h
      orchestrator keys revoke key_5f0c2a9b
    """


@command.command()
@click.option("--name", required=True, help="Whose it is; stands in logs and orders.")
@click.option(
    "--tenant",
    required=True,
    callback=_checked,
    help="Whose tasks it submits and sees; '*' is all.",
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([each.value for each in Scope]),
    multiple=True,
    help="What it may do; may be repeated. [default: submit and read]",
)
@click.option("--expires", type=_Duration(), help="After so long, such as 90d. [default: never]")
@plain_errors
@_file_option
@_json_option("The key's data and the key itself.")
def create(
    name: str,
    tenant: str,
    scopes: tuple[str, ...],
    expires: timedelta | None,
    path: Path,
    as_json: bool,  # noqa: FBT001 - a flag of the command line
) -> None:
    """Make a key and show it, once.

    \b
    Examples:
      orchestrator keys create --name "acme backend" --tenant acme
      orchestrator keys create --name ci --tenant acme --scope submit --expires 12h --json
      orchestrator keys create --name root --tenant '*' --scope admin --file keys.yaml
    """
    secret, made = new_secret(), now()
    try:
        key = Key(
            id=f"key_{secrets.token_hex(4)}",
            name=name,
            tenant=tenant,
            scopes=tuple(Scope(each) for each in scopes) or (Scope.SUBMIT, Scope.READ),
            sha256=digest_of(secret),
            created_at=made,
            expires_at=None if expires is None else made + expires,
        )
    except (ValidationError, OverflowError):
        raise click.UsageError(
            "--name takes 1 to 100 printable characters; --expires ends before the year 9999"
        ) from None
    with changing(path):
        ring = read(path) if path.exists() else KeyRing()
        write(path, KeyRing(keys=(*ring.keys, key)))
    _show_secret(key, secret, as_json=as_json)


@command.command("list")
@plain_errors
@_file_option
@_json_option("All keys, as data.")
def list_keys(path: Path, as_json: bool) -> None:  # noqa: FBT001
    """Show all keys, without the secrets: nobody has those.

    \b
    Examples:
      orchestrator keys list
      orchestrator keys list --file keys.yaml --json
    """
    keys = ShownKeys(keys=tuple(map(shown, read(path).keys)))
    if as_json:
        print_json(keys)
        return
    print_rows(_COLUMNS, map(_row, keys.keys))


def _row(key: ShownKey) -> tuple[str, ...]:
    expires = f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never"
    return key.id, key.name, key.tenant, " ".join(key.scopes), key.state, expires


@command.command()
@click.argument("key_id")
@plain_errors
@_file_option
@_json_option("The key's data.")
def revoke(key_id: str, path: Path, as_json: bool) -> None:  # noqa: FBT001
    """Take a key back: within a second no request with it is answered, nor any session of it.

    \b
    Examples:
      orchestrator keys revoke key_5f0c2a9b
    """
    key = _changed(path, key_id, lambda _: {"revoked_at": now()})
    if as_json:
        print_json(shown(key))
    else:
        click.echo(f"{key.id} ({key.name}) is revoked.")


@command.command()
@click.argument("key_id")
@click.option(
    "--grace",
    type=_Duration(),
    default=timedelta(),
    help="The old secret is taken for so long. [default: not at all]",
)
@click.option("--expires", type=_Duration(), help="The new one's end. [default: as it was]")
@plain_errors
@_file_option
@_json_option("The key's data and the new secret.")
def rotate(
    key_id: str,
    grace: timedelta,
    expires: timedelta | None,
    path: Path,
    as_json: bool,  # noqa: FBT001 - a flag of the command line
) -> None:
    """Give a key a new secret and show it, once.

    \b
    Examples:
      orchestrator keys rotate key_5f0c2a9b
      orchestrator keys rotate key_5f0c2a9b --grace 24h --expires 90d
    """
    secret, at = new_secret(), now()

    def renewed(key: Key) -> dict[str, Any]:
        return {
            "sha256": digest_of(secret),
            "rotated_at": at,
            "expires_at": key.expires_at if expires is None else at + expires,
            "previous": Previous(sha256=key.sha256, until=at + grace) if grace else None,
        }

    key = _changed(path, key_id, renewed)
    _show_secret(key, secret, as_json=as_json)


def _changed(path: Path, key_id: str, change: Callable[[Key], dict[str, Any]]) -> Key:
    """The key of that id after it was changed in the file.

    Raises:
        StartupError: there is no such key, or it is revoked.
    """
    with changing(path):
        ring = read(path)
        found = next((key for key in ring.keys if key.id == key_id), None)
        if found is None:
            raise StartupError(f"{path}: no key {key_id}; orchestrator keys list shows them")
        if found.revoked_at is not None:
            raise StartupError(f"{key_id} was revoked before; make a new key")
        key = found.model_copy(update=change(found))
        write(path, KeyRing(keys=tuple(key if each is found else each for each in ring.keys)))
    return key


def _show_secret(key: Key, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json(shown(key, secret))
        return
    click.echo(secret)
    click.echo(
        f"{key.id}: {key.name}, tenant {key.tenant}, may {', '.join(key.scopes)}. Keep the key "
        "now, it is shown only this once; send it as Authorization: Bearer.",
        err=True,
    )
