"""Dead letters: found, shown, and sent again.

A re-driven message goes to its original subject under a message id of its own, so that the dedup window of the stream,
which may still know the original id, does not swallow it. Its letter leaves the DLQ only after the stream has it.
"""

from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from hashlib import sha256

from msgspec import Struct

from router.errors import BusError
from router.ports.bus import History, Kept, Published
from router.usecases.messages.deliveries import REDRIVEN, REDRIVEN_BY
from router.wire.alerts import ReceivedDeadLetter, decode_dead_letter

Publish = Callable[[str, bytes, Mapping[str, str]], Awaitable[Published]]
"""`await publish(subject, payload, headers)`, acked by a stream; raises `BusError`."""


class Found(Struct, frozen=True):
    """A letter and its place in the DLQ, which is its id for people."""

    sequence: int
    at_ms: int
    message_id: str
    original_msg_id: str | None
    letter: ReceivedDeadLetter


class Filter(Struct, frozen=True):
    """Which letters; what is None does not matter. `subject` is the original one, `reason` is a part of it."""

    subject: str | None = None
    reason: str | None = None
    tenant_id: str | None = None
    since_ms: int | None = None

    def fits(self, letter: ReceivedDeadLetter) -> bool:
        """Whether this is one of them; the time is looked at by the reader."""
        return (
            (self.subject is None or letter.original_subject == self.subject)
            and (self.reason is None or self.reason.lower() in f"{letter.reason} {letter.error_code}".lower())
            and (self.tenant_id is None or letter.tenant_id == self.tenant_id)
        )


class Outcome(StrEnum):
    """What came of a re-drive."""

    REDRIVEN = "redriven"
    DUPLICATE = "duplicate"
    """The stream has this very re-drive already: somebody was quicker."""
    NO_PAYLOAD = "no_payload"
    FOREIGN = "foreign"
    FAILED = "failed"


class Redriven(Struct, frozen=True):
    """One letter's re-drive."""

    sequence: int
    subject: str
    outcome: Outcome
    message: str = ""


async def letters(dlq: History, chosen: Filter, *, maximum: int) -> list[Found]:
    """The newest `maximum` letters that fit, newest first.

    :raises BusError: the DLQ could not be read.
    """
    newest: deque[Found] = deque(maxlen=maximum)
    async for batch in dlq.read(since_ms=chosen.since_ms):
        for kept in batch:
            found = _found(kept)
            if found is not None and chosen.fits(found.letter):
                newest.append(found)
    return list(reversed(newest))


async def letter(dlq: History, sequence: int) -> Found | None:
    """One letter; None: there is none of ours.

    :raises BusError: the DLQ could not be read.
    """
    kept = await dlq.get(sequence)
    return None if kept is None else _found(kept)


def _found(kept: Kept) -> Found | None:
    made = decode_dead_letter(kept.data)
    if made is None:
        return None
    return Found(kept.sequence, kept.at_ms, kept.message_id, kept.headers.get("x-original-msg-id"), made)


class Original(Struct, frozen=True):
    """The message that was given up on."""

    payload: bytes
    headers: Mapping[str, str]


async def original(found: Found, origins: Mapping[str, History]) -> Original | None:
    """The very bytes: from the letter, else from the original stream while it holds them; None: only the hash is left.

    :raises BusError: the stream could not be read.
    """
    made = found.letter
    content_type = made.context.get("content_type")
    if made.payload is not None:
        return Original(b64decode(made.payload), {"Content-Type": content_type} if content_type else {})
    history, sequence = origins.get(made.original_subject), made.context.get("stream_sequence")
    kept = await history.get(sequence) if history is not None and isinstance(sequence, int) else None
    if kept is None or sha256(kept.data).hexdigest() != made.payload_sha256:
        return None
    return Original(kept.data, {k: v for k, v in kept.headers.items() if k != "Nats-Msg-Id"})


class Redrive:
    """Sends letters again. `origins`: the streams by the subjects that a letter may go back to; `by`: who does it."""

    def __init__(
        self, dlq: History, origins: Mapping[str, History], publish: Publish, *, by: str, keep: bool = False
    ) -> None:
        self._dlq = dlq
        self._origins = origins
        self._publish = publish
        self._by = by
        self._keep = keep

    async def __call__(self, found: Found) -> Redriven:
        """One letter. A fault of NATS is an outcome: the letter is still there, and the others have their turn."""
        subject = found.letter.original_subject
        if subject not in self._origins:
            return Redriven(found.sequence, subject, Outcome.FOREIGN, "not a subject that the fleet reads")
        try:
            return await self._send(found, subject)
        except BusError as fault:
            return Redriven(found.sequence, subject, Outcome.FAILED, str(fault))

    async def _send(self, found: Found, subject: str) -> Redriven:
        message = await original(found, self._origins)
        if message is None:
            why = "the letter has only the hash, and the stream has let the message go (ROUTER_DEAD_LETTER_PAYLOADS)"
            return Redriven(found.sequence, subject, Outcome.NO_PAYLOAD, why)
        headers = {
            **message.headers,
            "Nats-Msg-Id": f"redrive:{found.message_id}:{found.sequence}",
            REDRIVEN: str(found.sequence),
            REDRIVEN_BY: self._by,
        }
        if found.original_msg_id is not None:
            headers["x-original-msg-id"] = found.original_msg_id
        published = await self._publish(subject, message.payload, headers)
        if published is Published.FAILED:
            return Redriven(found.sequence, subject, Outcome.FAILED, "the stream refused it")
        if not self._keep:
            await self._dlq.delete(found.sequence)
        outcome = Outcome.DUPLICATE if published is Published.DUPLICATE else Outcome.REDRIVEN
        return Redriven(found.sequence, subject, outcome)
