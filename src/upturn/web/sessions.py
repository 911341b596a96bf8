"""Who is asking: sessions in signed cookies, tokens against forged requests, and limits on how often.

A cookie names the person, the number of their token (a new token ends the sessions of the old one) and a nonce. The
token against forged requests is the nonce signed under another salt: another site can neither read nor make it.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from itsdangerous import BadData, Signer, URLSafeTimedSerializer

from upturn.annotation.db.validation import Person

COOKIE = "upturn"
LASTS = 14 * 24 * 3600  # seconds: two weeks, the length of a round of voting
_FULL = 10_000  # buckets that are kept at most


@dataclass(frozen=True)
class Session:
    """A person who has signed in; ``csrf`` must come back with everything that changes something."""

    person: Person
    csrf: str


class Signing:
    """Cookies and their tokens, signed with the key of the run's votes."""

    def __init__(self, key: bytes) -> None:
        self._cookies = URLSafeTimedSerializer(key, salt="upturn session")
        self._forms = Signer(key, salt="upturn form")

    def cookie(self, person: Person) -> str:
        """The value of a new session's cookie."""
        cookie: str | bytes = self._cookies.dumps([person.id, person.epoch, secrets.token_hex(8)])
        return cookie if isinstance(cookie, str) else cookie.decode()

    def read(self, cookie: str) -> tuple[str, int, str] | None:
        """Person, number of the token, and the token against forged requests; None where the cookie is not ours."""
        try:
            person, epoch, nonce = self._cookies.loads(cookie, max_age=LASTS)
        except (BadData, ValueError, TypeError):
            return None
        return str(person), int(epoch), self._forms.get_signature(str(nonce)).decode()


def same(given: str | None, expected: str) -> bool:
    """Compared in a time that does not depend on where they differ."""
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


@dataclass(frozen=True)
class RequestRate:
    """``burst`` at once, then ``per_second``."""

    per_second: float
    burst: float


@dataclass(frozen=True)
class Rates:
    """What one person, or one address, may do; a person who votes as quickly as they can stays far below."""

    requests: RequestRate = RequestRate(25, 250)  # a vote on four images is six requests
    votes: RequestRate = RequestRate(5, 40)  # answers and undos
    failures: RequestRate = RequestRate(10 / 60, 10)  # of signing in, an address
    studio: RequestRate = RequestRate(0.5, 10)


@dataclass
class RateLimits:
    """Token buckets, in memory: a server that restarts forgets them."""

    rates: Rates = field(default_factory=Rates)
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def wait(self, what: str, who: str, cost: float = 1.0) -> float:
        """Take from a bucket; returns 0, or the seconds to wait where it is empty."""
        rate: RequestRate = getattr(self.rates, what)
        now = self.clock()
        level, then = self._buckets.get((what, who), (rate.burst, now))
        level = min(rate.burst, level + (now - then) * rate.per_second)
        if level < max(cost, 1.0):
            return (max(cost, 1.0) - level) / rate.per_second
        if len(self._buckets) >= _FULL and (what, who) not in self._buckets:
            self._forget(now)
        self._buckets[what, who] = (level - cost, now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Full buckets say nothing; where none is full, those longest untouched go."""
        def fuller(item: tuple[tuple[str, str], tuple[float, float]]) -> float:
            return item[1][1]

        kept = sorted(self._buckets.items(), key=fuller)[_FULL // 2 :]
        self._buckets = dict(kept)
