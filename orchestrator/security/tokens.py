"""Bearer tokens of an identity provider: JSON Web Tokens, checked against its published keys."""

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet

from orchestrator.config import Jwt
from orchestrator.errors import StartupError, Unauthenticated
from orchestrator.security.callers import MAX_NAME, Caller, Scope, scopes_of
from orchestrator.security.keys import is_tenant
from orchestrator.telemetry.logging import get_logger

FETCH_SECONDS = 5.0
REFETCH_SECONDS = 10.0
"""Whoever sends unknown key ids has the keys fetched no more often than this."""
KEPT_TOKENS = 10_000
KEPT_SECONDS = 60.0
"""A token that was found good is not checked again for so long, or until it expires."""
_FAMILIES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}

log = get_logger(__name__)


class Tokens:
    """Checks tokens; those found good are kept by their hash, so that the next check costs none.

    Raises:
        StartupError: ``jwks`` names a file that holds no key set.
    """

    def __init__(self, section: Jwt, clock: Callable[[], float] = time.monotonic) -> None:
        self._section = section
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Caller, float]] = OrderedDict()
        self._turn = asyncio.Lock()
        self._rests_until = self._refetch_at = float("-inf")
        self._remote: PyJWKClient | None = None
        self._file: PyJWKSet | None = None
        if section.jwks.startswith(("http://", "https://")):
            self._remote = PyJWKClient(
                section.jwks,
                lifespan=section.jwks_seconds,
                timeout=FETCH_SECONDS,
                cooldown_duration=REFETCH_SECONDS,
            )
        else:
            self._file = _key_set(Path(section.jwks))

    async def caller(self, token: str) -> tuple[Caller, float]:
        """Whose token it is, and when that ends, in seconds since 1970.

        Raises:
            Unauthenticated: it is not a good token, and why; what is in it is not repeated.
        """
        digest = hashlib.sha256(token.encode()).hexdigest()
        kept = self._kept.get(digest)
        if kept and self._clock() < kept[0] and time.time() < kept[2]:
            return kept[1], kept[2]
        claims = await self._claims(token)
        caller = self._caller_of(claims)
        ends = float(claims["exp"])
        self._keep(digest, caller, ends)
        return caller, ends

    def _keep(self, digest: str, caller: Caller, ends: float) -> None:
        self._kept[digest] = self._clock() + KEPT_SECONDS, caller, ends
        self._kept.move_to_end(digest)
        while len(self._kept) > KEPT_TOKENS:
            self._kept.popitem(last=False)

    async def _claims(self, token: str) -> dict[str, Any]:
        section = self._section
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in section.algorithms:
                raise Unauthenticated("The token is signed in a way that is not taken")
            key = await self._key(header.get("kid"))
            if key.key_type != _FAMILIES[algorithm]:
                raise Unauthenticated("The token's key is of another kind than its signature")
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=section.issuer,
                audience=section.audience,
                leeway=section.leeway,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired") from None
        except jwt.PyJWTError as error:
            # Its text may quote the token's claims.
            raise Unauthenticated(f"The token is not good: {type(error).__name__}") from None

    async def _key(self, key_id: Any) -> PyJWK:
        """The key of that id; a set of one key needs no ids."""
        found = _chosen(await self._keys(), key_id)
        if found is None and self._remote is not None:
            found = _chosen(await self._keys(again=True), key_id)
        if found is None:
            raise Unauthenticated("The token's key is not known")
        return found

    async def _keys(self, *, again: bool = False) -> PyJWKSet:
        """The key set; from its source ``again``, unless it was fetched a moment ago."""
        if self._remote is None:
            assert self._file is not None  # noqa: S101 - one of them is there
            return self._file
        # One at a time, and none for a while after the provider did not answer.
        async with self._turn:
            if self._clock() < self._rests_until:
                raise Unauthenticated("The identity provider's keys cannot be had at present")
            try:
                return await asyncio.to_thread(self._fetched, self._remote, again)
            except (jwt.PyJWTError, OSError, ValueError) as error:
                self._rests_until = self._clock() + REFETCH_SECONDS
                log.warning("jwks_unreachable", jwks=self._section.jwks, error=str(error))
                raise Unauthenticated(
                    "The identity provider's keys cannot be had at present"
                ) from None

    def _fetched(self, remote: PyJWKClient, again: bool) -> PyJWKSet:  # noqa: FBT001
        refresh = again and self._clock() >= self._refetch_at
        if refresh:
            self._refetch_at = self._clock() + REFETCH_SECONDS
        return remote.get_jwk_set(refresh=refresh)

    def _caller_of(self, claims: dict[str, Any]) -> Caller:
        told = claims.get(self._section.scope_claim, ())
        names = told.split() if isinstance(told, str) else told
        prefix = self._section.scope_prefix
        scopes = scopes_of(
            each.removeprefix(prefix)
            for each in (names if isinstance(names, list) else ())
            if isinstance(each, str) and each.startswith(prefix)
        )
        tenant = claims.get(self._section.tenant_claim)
        if tenant is None and Scope.ADMIN not in scopes:
            raise Unauthenticated(f"The token names no tenant ({self._section.tenant_claim})")
        if tenant is not None and not is_tenant(tenant):
            raise Unauthenticated(f"The token's tenant ({self._section.tenant_claim}) is not one")
        name = str(claims.get("sub") or claims.get("client_id") or "token")[:MAX_NAME]
        return Caller(name, tenant, scopes, "token")


def _chosen(keys: PyJWKSet, key_id: Any) -> PyJWK | None:
    usable = [key for key in keys.keys if key.public_key_use in {"sig", None}]
    if key_id is None:
        return usable[0] if len(usable) == 1 else None
    return next((key for key in usable if key.key_id == key_id), None)


def _key_set(path: Path) -> PyJWKSet:
    try:
        return PyJWKSet.from_dict(json.loads(path.read_bytes()))
    except OSError as error:
        raise StartupError(f"security.jwt.jwks: {path} cannot be read: {error.strerror}") from None
    except (jwt.PyJWTError, ValueError, AttributeError, TypeError):
        raise StartupError(f"security.jwt.jwks: {path} holds no JSON Web Key Set") from None
