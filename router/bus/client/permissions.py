"""The permissions that NATS refuses to this user, and the subscriptions that are lost because of it.

A permission may be taken away at any time, by a reload of the server's configuration. The server then drops the
subscription, reports that once, and does not restore it when the permission is back. So the bus repeats each lost
subscription: after 1 s, 2 s, 4 s and so on, at least every 10 s, and after each reconnect.

A refused publish is reported with each message. `publish_refused` says whether that happened since a given moment.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

from msgspec import Struct

from router.bus.client.fast import FastClient
from router.bus.client.faults import translated
from router.bus.client.notify import notify
from router.errors import BusError
from router.log_throttle import LogThrottle
from router.telemetry.events import Event
from router.wire import subjects

log = logging.getLogger(__name__)

Verb = Literal["publish", "subscribe"]

_FIRST_RETRY_S = 1.0
_MAX_RETRY_S = 10.0
_FLUSH_S = 2.0
_MAX_REFUSED = 256


class Refusal(Struct, frozen=True):
    """A permission that this user lacks; `str` gives the message. `subject`: what to permit; `hint`: what to do
    instead.
    """

    verb: Verb
    subject: str
    hint: str = ""

    def __str__(self) -> str:
        return f"NATS does not permit this user to {self.verb} to {self.subject}{self.hint}"


class Permissions:
    """Tracks refusals; see the module. Times are monotonic, in seconds.

    `lost`: the live subscriptions that the server has dropped, by subject. `on_publish_refused` is called for each
    refused message, `on_refused` for each refusal.
    """

    def __init__(self, inbox_prefix: str) -> None:
        self._inbox = f"{inbox_prefix}."
        self.lost: dict[str, Refusal] = {}
        self.on_publish_refused: list[Callable[[Refusal], None]] = []
        self.on_refused: list[Callable[[Refusal], None]] = []
        self._refused: dict[tuple[Verb, str], float] = {}
        self._subscribing: list[str] = []
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._throttle = LogThrottle(time.monotonic)

    def publish_refused(self, subject: str, since: float) -> Refusal | None:
        """Why the server refused to publish to the subject, if it did since that moment."""
        return self._refusal("publish", subject) if self._refused_since("publish", subject, since) else None

    def inbox_refused(self) -> Refusal | None:
        """Why the server refuses the inboxes of this client, if it does now."""
        return next((refusal for subject, refusal in self.lost.items() if subject.startswith(self._inbox)), None)

    @contextmanager
    def subscribing(self, subject: str) -> Iterator[Callable[[], Refusal | None]]:
        """Keep a refusal of this subject out of `lost`. The value says why the server refused it, if it did."""
        began = time.monotonic()
        self._subscribing.append(subject)
        try:
            yield (
                lambda: (
                    self._refusal("subscribe", subject) if self._refused_since("subscribe", subject, began) else None
                )
            )
        finally:
            self._subscribing.remove(subject)

    def refused(self, verb: Verb, subject: str) -> None:
        """Record a refusal of the server."""
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.clear()
        self._refused[verb, subject] = time.monotonic()
        refusal = self._refusal(verb, subject)
        if (suppressed := self._throttle.due(str(refusal) if _is_ours(subject) else "")) is not None:
            log.error(str(refusal), extra={"event": Event.BUS_ERROR, "unsaid": suppressed})
        if verb == "publish":
            notify(self.on_publish_refused, refusal)
        elif subject not in self._subscribing:
            self.lose(subject, refusal)
        notify(self.on_refused, refusal)

    def lose(self, subject: str, refusal: Refusal) -> None:
        """Add a subscription to those that are repeated."""
        if not self.lost:
            self._retry_s = _FIRST_RETRY_S
            self._retry_at = time.monotonic() + _FIRST_RETRY_S
        self.lost.setdefault(subject, refusal)

    def connected(self) -> None:
        """Check soon which lost subscriptions the server accepts: a new connection has just set up all of them."""
        self._throttle.over()
        self._retry_s, self._retry_at = _FIRST_RETRY_S, 0.0

    async def regain(self, client: FastClient) -> None:
        """Repeat the lost subscriptions when that is due. Call it every second."""
        asked_at = time.monotonic()
        if not self.lost or asked_at < self._retry_at or not client.is_connected:
            return
        self._retry_at = asked_at + self._retry_s
        self._retry_s = min(2 * self._retry_s, _MAX_RETRY_S)
        wanted = client.subscribe_again(self.lost)
        with suppress(BusError), translated("PING"):
            await client.rtt(_FLUSH_S)  # type: ignore[arg-type]  # seconds; nats-py annotates int
            still = {s for s in wanted if self._refused_since("subscribe", s, asked_at)}
            self._keep({s: refusal for s, refusal in self.lost.items() if s in still})

    def _keep(self, lost: Mapping[str, Refusal]) -> None:
        regained = self.lost.keys() - lost.keys()
        if not regained:
            return
        self.lost = dict(lost)
        for subject in sorted(regained):
            log.info("NATS permits %s again; subscribed", subject, extra={"event": Event.BUS_BACK})

    def _refused_since(self, verb: Verb, subject: str, since: float) -> bool:
        return self._refused.get((verb, subject), float("-inf")) >= since

    def _refusal(self, verb: Verb, subject: str) -> Refusal:
        if verb == "subscribe" and subject.startswith(self._inbox):
            return Refusal(verb, f"{self._inbox}>", ": permit it, or set ROUTER_NATS_INBOX_PREFIX")
        return Refusal(verb, subject)


def _is_ours(subject: str) -> bool:
    """Whether the router chooses the subject, so that it may have its own log line; callers choose reply subjects."""
    return subjects.is_own(subject) or subject.startswith("$JS.API.")
