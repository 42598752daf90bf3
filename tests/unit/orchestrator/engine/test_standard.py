"""The SDK's standard environment and profiles, as another way to say where the engine is."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Temporal
from orchestrator.config_file import load
from orchestrator.errors import ConfigurationError
from tests.unit.orchestrator.config_text import load_text, refused

PROFILES = """
[profile.default]
address = "default.example:7233"

[profile.cloud]
address = "eu-west-1.example:7233"
namespace = "team.a1b2c"
api_key = "from-the-file"

[profile.mutual]
address = "mutual.example:7233"
[profile.mutual.tls]
server_name = "engine"
server_ca_cert_path = "/certs/ca.crt"
client_cert_path = "/certs/us.crt"
client_key_data = "-----BEGIN PRIVATE KEY-----"
[profile.mutual.grpc_meta]
x-team = "blue"
"""


@pytest.fixture
def profiles(tmp_path: Path) -> str:
    """A file of profiles."""
    file = tmp_path / "temporal.toml"
    file.write_text(PROFILES)
    return str(file)


def temporal(**environ: str) -> Temporal:
    """The section as it is understood without a file."""
    return load(None, environ).temporal


def test_variables_tell_the_connection() -> None:
    """Address, namespace and API key; with a key the connection is encrypted."""
    found = temporal(TEMPORAL_ADDRESS="h:7233", TEMPORAL_NAMESPACE="team", TEMPORAL_API_KEY="key")
    assert found.api_key is not None
    assert ("h:7233", "team", "key") == (
        found.target,
        found.namespace,
        found.api_key.get_secret_value(),
    )
    assert found.uses_tls


def test_tls_can_be_switched_off_beside_a_key() -> None:
    """As the standard has it: TEMPORAL_TLS."""
    found = temporal(TEMPORAL_ADDRESS="h:7233", TEMPORAL_API_KEY="key", TEMPORAL_TLS="false")
    assert not found.uses_tls


def test_empty_variable_is_none() -> None:
    """Compose passes on variables that nobody has set as empty ones."""
    found = temporal(TEMPORAL_ADDRESS="h:7233", TEMPORAL_API_KEY="", TEMPORAL_TLS="")
    assert (None, None) == (found.api_key, found.tls)


def test_profile_is_taken_by_its_name(profiles: str) -> None:
    """TEMPORAL_PROFILE and TEMPORAL_CONFIG_FILE, with variables over the file."""
    found = temporal(
        TEMPORAL_CONFIG_FILE=profiles, TEMPORAL_PROFILE="cloud", TEMPORAL_API_KEY="of-the-shell"
    )
    assert found.api_key is not None
    assert ("eu-west-1.example:7233", "team.a1b2c", "of-the-shell") == (
        found.target,
        found.namespace,
        found.api_key.get_secret_value(),
    )


def test_configuration_names_a_profile(tmp_path: Path, profiles: str) -> None:
    """`temporal.profile` takes it without any variable but the file's."""
    found = load_text(
        tmp_path, "temporal: {profile: mutual}", {"TEMPORAL_CONFIG_FILE": profiles}
    ).temporal
    assert found.tls is not None
    assert found.tls.key_data is not None
    assert ("mutual.example:7233", "engine", "/certs/ca.crt", "/certs/us.crt") == (
        found.target,
        found.tls.server_name,
        found.tls.ca_file,
        found.tls.cert_file,
    )
    assert "-----BEGIN PRIVATE KEY-----" == found.tls.key_data.get_secret_value()
    assert {"x-team": "blue"} == {k: v.get_secret_value() for k, v in found.grpc_meta.items()}


def test_default_profile_counts_only_when_its_file_is_named(profiles: str) -> None:
    """Whose shell names the file means it; a file at home alone switches no engine."""
    assert "default.example:7233" == temporal(TEMPORAL_CONFIG_FILE=profiles).target
    assert temporal(HOME=str(Path(profiles).parent)).is_embedded


@pytest.mark.parametrize("address", ["own.example:7233", "embedded"])
def test_given_address_stands(tmp_path: Path, address: str) -> None:
    """Who names an address says all of the connection: no key goes to where it is not meant."""
    environ = {"TEMPORAL_ADDRESS": "other.example:7233", "TEMPORAL_API_KEY": "key"}
    found = load_text(tmp_path, f"temporal: {{address: '{address}'}}", environ).temporal
    assert (address, None) == (found.address, found.api_key)


def test_file_goes_before_single_values_of_the_environment(tmp_path: Path) -> None:
    """What else the section says holds over what the environment tells."""
    environ = {"TEMPORAL_ADDRESS": "h:7233", "TEMPORAL_NAMESPACE": "theirs"}
    found = load_text(tmp_path, "temporal: {namespace: ours}", environ).temporal
    assert ("h:7233", "ours") == (found.target, found.namespace)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"TEMPORAL_PROFILE": "nope"}, "TEMPORAL_PROFILE: Profile 'nope' not found"),
        ({"TEMPORAL_CONFIG_FILE": "/none.toml"}, "there is no file /none.toml"),
        ({"TEMPORAL_ADDRESS": "h"}, 'TEMPORAL_ADDRESS: temporal.address: found "h"; allowed'),
    ],
)
def test_mistakes_name_the_variable(environ: dict[str, str], problem: str) -> None:
    """What is wrong there, and where."""
    with pytest.raises(ConfigurationError, match="environment variable") as refusal:
        load(None, environ)
    assert problem in str(refusal.value)


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    """A certificate without its key is found when the file is read."""
    [problem] = refused(tmp_path, "temporal: {address: 'h:1', tls: {cert_file: us.crt}}")
    assert "a client certificate has two parts: cert_file and key_file" in problem


def test_key_is_in_no_error(tmp_path: Path) -> None:
    """Nor is one that stands beside what is wrong."""
    text = "temporal: {address: 'h:1', tls: {key_data: planted-key}}"
    [problem] = refused(tmp_path, text)
    assert "planted" not in problem


def secret_of(path: str, file: Path) -> Any:
    """The settings with one secret from a file."""
    return load(None, {f"ORCHESTRATOR_{path}_FILE": str(file)})


def test_secret_comes_from_a_file(tmp_path: Path) -> None:
    """Any secret may, without the end of its line; so containers get theirs."""
    file = tmp_path / "secret"
    file.write_text("0123-very-secret-key\n")
    key = secret_of("TEMPORAL__API_KEY", file).temporal.api_key
    completions = secret_of("completions__secret", file).completions.secret
    assert 2 * ["0123-very-secret-key"] == [key.get_secret_value(), completions.get_secret_value()]


def test_secret_of_a_list_comes_from_a_file(tmp_path: Path) -> None:
    """Items have numbers."""
    file = tmp_path / "secret"
    file.write_text("whsec_" + "QUFB" * 8)
    [secret] = secret_of("CALLBACKS__SECRETS__0", file).callbacks.secrets
    assert file.read_text() == secret.get_secret_value()


def test_missing_file_of_a_secret_is_named(tmp_path: Path) -> None:
    """The variable, the file, and why it cannot be read."""
    with pytest.raises(ConfigurationError) as refusal:
        secret_of("TEMPORAL__API_KEY", tmp_path / "none")
    assert "ORCHESTRATOR_TEMPORAL__API_KEY_FILE: the file" in str(refusal.value)
    assert "No such file or directory" in str(refusal.value)


def test_keys_that_end_in_file_stay_what_they_are() -> None:
    """A path of the configuration is no file of a secret."""
    found = load(None, {"ORCHESTRATOR_TEMPORAL__TLS__CA_FILE": "/certs/ca.crt"}).temporal.tls
    assert found is not None
    assert "/certs/ca.crt" == found.ca_file
