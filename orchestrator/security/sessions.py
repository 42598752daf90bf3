"""Sessions of browsers: a signed cookie that names the key, or the token's holder, and an end."""

import secrets
import time
from dataclasses import dataclass

import jwt

from orchestrator.config import Security
from orchestrator.errors import Unauthenticated
from orchestrator.security.authenticator import Authenticator
from orchestrator.security.callers import Caller, scopes_of

COOKIE = "orchestrator_session"
_ALGORITHM = "HS256"
_AUDIENCE = "orchestrator-session"


@dataclass(frozen=True, slots=True)
class Session:
    """A cookie's value, whose it is, and for how many seconds it is good."""

    cookie: str
    caller: Caller
    seconds: int


class Sessions:
    """Begins and reads sessions.

    One that was begun with a key ends with that key: when it expires, is revoked or rotated away.
    Without ``session_secret`` a process signs with a secret of its own, so that its sessions are
    good there alone, and until it ends.
    """

    def __init__(self, section: Security, authenticator: Authenticator) -> None:
        given = section.session_secret
        self._secret = given.get_secret_value() if given else secrets.token_hex(32)
        self._seconds = int(section.session_seconds)
        self._authenticator = authenticator

    async def begin(self, credential: str) -> Session:
        """A session for whoever shows this key or token.

        Raises:
            Unauthenticated: it is not good.
        """
        caller, ends, whose = await self._authenticator.identified(credential)
        now = int(time.time())
        ends = min(now + self._seconds, int(ends))
        claims = {**whose, "aud": _AUDIENCE, "iat": now, "exp": ends}
        cookie = jwt.encode(claims, self._secret, algorithm=_ALGORITHM)
        return Session(cookie, caller, ends - now)

    def caller(self, cookie: str) -> Caller:
        """Whose session it is.

        Raises:
            Unauthenticated: it has ended, or was not begun here.
        """
        try:
            claims = jwt.decode(
                cookie,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp"]},
            )
        except jwt.PyJWTError:
            raise Unauthenticated("The session has ended; log in again") from None
        if "key" in claims:
            return self._authenticator.of_session(claims["key"], claims["secret"])
        scopes = scopes_of(claims["scopes"])
        return Caller(claims["name"], claims["tenant"], scopes, "token")
