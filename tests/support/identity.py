"""A real identity provider, as far as the product asks one: its keys over HTTP, and its tokens."""

import json
import time
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

AUDIENCE = "orchestrator"
_ALGORITHM = "ES256"


class Provider:
    """Publishes the keys by which its tokens can be checked; an async context manager."""

    def __init__(self) -> None:
        self.issuer = "https://id.example.com/"
        self.url = ""
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._published: list[str] = []
        self.rotate()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/jwks.json", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/jwks.json"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def newest(self) -> str:
        """The id of the key that is published."""
        return self._published[-1]

    def rotate(self) -> None:
        """Publish a new key alone."""
        key_id = f"key-{len(self._keys) + 1}"
        self._keys[key_id] = ec.generate_private_key(ec.SECP256R1())
        self._published = [key_id]

    def token(self, key_id: str | None = None, **claims: Any) -> str:
        """A good token but for what the claims change, signed with the newest key."""
        every = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "exp": time.time() + 600,
            "sub": "ann",
            "tenant": "acme",
            "scope": "read submit",
        } | claims
        given = {name: value for name, value in every.items() if value is not None}
        key_id = key_id or self.newest
        return jwt.encode(given, self._keys[key_id], _ALGORITHM, headers={"kid": key_id})

    async def _answer(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [self._jwk(each) for each in self._published]})

    def _jwk(self, key_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(self._keys[key_id].public_key()))
        return found | {"kid": key_id, "use": "sig"}
