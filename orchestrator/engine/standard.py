"""The connection as the SDK's standard environment has it: TEMPORAL_* variables, and profiles.

docs/engine.md tells users when it is asked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS, DataSource

DEFAULT_ADDRESS = "localhost:7233"
"""What the SDK connects to where nobody names an address."""
_TELLING = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")


def telling(environ: Mapping[str, str], profile: str | None) -> str | None:
    """What makes the standard environment count, a profile or a variable; None: nothing does.

    A file of profiles in the user's home alone does not: who starts an engine of his own is not to
    meet another.
    """
    if profile:
        return f"profile '{profile}' (temporal.profile)"
    return next((f"environment variable {name}" for name in _TELLING if environ.get(name)), None)


def connection(environ: Mapping[str, str], profile: str | None) -> dict[str, Any]:
    """What the standard environment says, as values of the section ``temporal``.

    An empty variable is one that nobody has set.

    Raises:
        ValueError: there is no such profile or file, or the file is not understood.
    """
    given = {name: value for name, value in environ.items() if value}
    file = given.get("TEMPORAL_CONFIG_FILE")
    if file and not Path(file).is_file():
        raise ValueError(f"there is no file {file} (TEMPORAL_CONFIG_FILE)")
    try:
        found = ClientConfigProfile.load(profile, override_env_vars=given)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return {
        "address": found.address or DEFAULT_ADDRESS,
        **({"namespace": found.namespace} if found.namespace else {}),
        **({"api_key": found.api_key} if found.api_key else {}),
        **({"tls": _tls(found.tls)} if found.tls else {}),
        **({"grpc_meta": dict(found.grpc_meta)} if found.grpc_meta else {}),
    }


def _tls(found: ClientConfigTLS) -> dict[str, Any]:
    values = {
        "server_name": found.server_name,
        **_source("ca", found.server_root_ca_cert),
        **_source("cert", found.client_cert),
        **_source("key", found.client_private_key),
    }
    return {"enabled": not found.disabled, **{k: v for k, v in values.items() if v}}


def _source(name: str, source: DataSource | None) -> dict[str, str]:
    if source is None:
        return {}
    if isinstance(source, Path):
        return {f"{name}_file": str(source)}
    return {f"{name}_data": source.decode() if isinstance(source, bytes) else source}
