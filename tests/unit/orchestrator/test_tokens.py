"""Tokens of an identity provider: what is taken and what is not."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from orchestrator.config import Jwt
from orchestrator.errors import StartupError, Unauthenticated
from orchestrator.security.callers import Scope
from orchestrator.security.tokens import Tokens

PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
_TO_JWK: dict[str, Callable[[Any], str]] = {
    "RS256": lambda key: str(RSAAlgorithm.to_jwk(key)),
    "ES256": lambda key: str(ECAlgorithm.to_jwk(key)),
    "EdDSA": lambda key: str(OKPAlgorithm.to_jwk(key)),
}


def key_set(*algorithms: str) -> dict[str, Any]:
    """The public keys, each with its algorithm as its id."""
    found = [
        json.loads(_TO_JWK[name](PRIVATE[name].public_key())) | {"kid": name} for name in algorithms
    ]
    return {"keys": found}


def token(algorithm: str = "ES256", key_id: str | None = None, **claims: Any) -> str:
    """A good token, but for what the claims change."""
    every = {
        "iss": "https://id",
        "aud": "orchestrator",
        "exp": time.time() + 600,
        "sub": "ann",
        "tenant": "acme",
        "scope": "read submit other",
    } | claims
    given = {name: value for name, value in every.items() if value is not None}
    headers = {"kid": key_id or algorithm}
    return jwt.encode(given, PRIVATE[algorithm], algorithm, headers=headers)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """Those of the three keys, in a file."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(key_set(*PRIVATE)))
    return Tokens(Jwt(issuer="https://id", audience="orchestrator", jwks=str(path)))


@pytest.mark.parametrize("algorithm", list(PRIVATE))
async def test_a_good_token_tells_who_sends_it(tokens: Tokens, algorithm: str) -> None:
    """Name, tenant, and the scopes that mean something here."""
    caller, _ = await tokens.caller(token(algorithm))
    assert ("ann", "acme", frozenset({Scope.READ, Scope.SUBMIT})) == (
        caller.name,
        caller.tenant,
        caller.scopes,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": time.time() - 600},
        {"exp": None},
        {"iss": "https://other"},
        {"aud": "other"},
        {"aud": None},
        {"tenant": None},
        {"tenant": ["acme"]},
        {"tenant": "a b"},
        {"nbf": time.time() + 86_400},
    ],
)
async def test_others_are_not_taken(tokens: Tokens, wrong: dict[str, Any]) -> None:
    """Nor is anything of them repeated."""
    with pytest.raises(Unauthenticated) as caught:
        await tokens.caller(token(**wrong))
    assert "ann" not in str(caught.value)


async def test_unsigned_or_foreign_signatures_are_not_taken(tokens: Tokens) -> None:
    """None, a shared secret, the key of another kind, an unknown key, garbage."""
    claims = jwt.decode(token(), options={"verify_signature": False})
    wrong = [
        jwt.encode(claims, "", "none"),
        jwt.encode(claims, "x" * 64, "HS256", headers={"kid": "ES256"}),
        token("ES256", key_id="RS256"),
        token("ES256", key_id="unknown"),
        token()[:-4],
        "",
        "a.b.c",
        "é",
    ]
    for each in wrong:
        with pytest.raises(Unauthenticated):
            await tokens.caller(each)


async def test_an_admin_needs_no_tenant(tokens: Tokens) -> None:
    """It is for all."""
    caller, _ = await tokens.caller(token(tenant=None, scope=["admin"]))
    assert (None, True) == (caller.tenant, caller.sees_all)


async def test_unknown_key_ids_have_keys_fetched_but_not_often() -> None:
    """A key that is new is found; a flood of unknown ones costs one more fetch."""
    fetched, known = list[int](), ["RS256"]

    async def answer(_: web.Request) -> web.Response:
        fetched.append(1)
        return web.json_response(key_set(*known))

    app = web.Application()
    app.router.add_get("/jwks", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    try:
        tokens = Tokens(Jwt(issuer="https://id", audience="orchestrator", jwks=url))
        await tokens.caller(token("RS256"))
        known.append("ES256")
        await tokens.caller(token("ES256"))
        for number in range(20):
            with pytest.raises(Unauthenticated):
                await tokens.caller(token(key_id=f"unknown-{number}"))
    finally:
        await runner.cleanup()
    assert 2 == len(fetched)


async def test_a_provider_that_is_away_is_no_crash() -> None:
    """Nobody is let in, and the next request does not ask again."""
    tokens = Tokens(
        Jwt(issuer="https://id", audience="orchestrator", jwks="http://127.0.0.1:9/jwks")
    )
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="cannot be had"):
            await tokens.caller(token())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": []}'])
def test_a_file_without_keys_is_told(tmp_path: Path, text: str) -> None:
    """At the start."""
    path = tmp_path / "jwks.json"
    path.write_text(text)
    with pytest.raises(StartupError, match="no JSON Web Key Set"):
        Tokens(Jwt(issuer="i", audience="a", jwks=str(path)))
