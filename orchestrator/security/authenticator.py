"""Who a request comes from, by its bearer credential: an API key, or a token of a provider."""

import sys
from typing import Any

from orchestrator.config import Settings
from orchestrator.errors import Unauthenticated
from orchestrator.security.callers import EVERYBODY, Caller
from orchestrator.security.key_file import KeyFile
from orchestrator.security.keys import PREFIX, Key, digest_of, is_key
from orchestrator.security.tokens import Tokens

NO_CREDENTIALS = (
    "Say who you are: Authorization: Bearer KEY, with a key of `orchestrator keys create`"
)


class Authenticator:
    """Knows callers by what they show.

    Without a keys file and without an identity provider nobody is asked: everybody may do
    everything.

    Raises:
        StartupError: the keys file, or the provider's, cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        section = settings.security
        self.asks = section.asks
        self.keys = KeyFile(section.keys_file) if section.keys_file else None
        self.tokens = Tokens(section.jwt) if section.jwt else None

    async def caller(self, credential: str | None) -> Caller:
        """Who shows this; None shows nothing.

        Raises:
            Unauthenticated: nobody that is known.
        """
        if not self.asks:
            return EVERYBODY
        if credential is None:
            raise Unauthenticated(NO_CREDENTIALS, shown=False)
        if credential.startswith(PREFIX) or self.tokens is None:
            return self._of_key(credential)
        return (await self.tokens.caller(credential))[0]

    async def identified(self, credential: str) -> tuple[Caller, float, dict[str, Any]]:
        """Who shows this, when it ends (seconds since 1970), and what a session says of them.

        Raises:
            Unauthenticated: nobody that is known.
        """
        if self.tokens is not None and not credential.startswith(PREFIX):
            caller, ends = await self.tokens.caller(credential)
            scopes = sorted(caller.scopes)
            return caller, ends, {"name": caller.name, "tenant": caller.tenant, "scopes": scopes}
        key = self._key(credential)
        ends = key.expires_at.timestamp() if key.expires_at else float(sys.maxsize)
        # A digest of the digest: the cookie is to tell nothing that the keys file holds.
        return key.caller, ends, {"key": key.id, "secret": digest_of(digest_of(credential))}

    def of_session(self, key_id: str, secret: str) -> Caller:
        """Who holds the key of that id, while the session's secret is one that it has.

        Raises:
            Unauthenticated: it is not in force any more.
        """
        key = self.keys.by_id(key_id) if self.keys else None
        if key is None or not key.knows(secret):
            raise Unauthenticated("The session's key has expired, was revoked or rotated")
        return key.caller

    def _of_key(self, secret: str) -> Caller:
        return self._key(secret).caller

    def _key(self, secret: str) -> Key:
        if self.keys is None:
            raise Unauthenticated("API keys are not taken here; send a token")
        key = self.keys.find(secret)
        if key is not None:
            return key
        if not is_key(secret):
            raise Unauthenticated("That is no key of ours, or it is mistyped")
        raise Unauthenticated("The key is not known, has expired or was revoked")
