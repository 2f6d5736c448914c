"""Search, display and redrive of dead letters.

To redrive a dead letter means to publish its message to its original subject again. The message gets a new message id,
because the stream's dedup window may still hold the original id. The dead letter is deleted only after the stream has
stored the message.
"""

from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import assert_never

from msgspec import Struct

from router.errors import BusError
from router.ports.bus import History, Published, StoredMessage
from router.usecases.messages.deliveries import REDRIVEN, REDRIVEN_BY
from router.wire.alerts import ReceivedDeadLetter, decode_dead_letter
from router.wire.subjects import without_tenant

Publish = Callable[[str, bytes, Mapping[str, str]], Awaitable[Published]]
"""`await publish(subject, payload, headers)` into a stream, which acknowledges it; raises `BusError`."""


class StoredDeadLetter(Struct, frozen=True):
    """A dead letter and its place in the DLQ. Operators use `sequence` as its id."""

    sequence: int
    at_ms: int
    message_id: str
    original_msg_id: str | None
    letter: ReceivedDeadLetter


class Filter(Struct, frozen=True, kw_only=True):
    """Selects dead letters; a field that is None matches all.

    `subject` is the original subject, or the open one of a subject that is bound to a tenant. `reason` is a part of the
    reason or error code, in any case.
    """

    subject: str | None = None
    reason: str | None = None
    tenant_id: str | None = None
    since_ms: int | None = None

    def fits(self, letter: ReceivedDeadLetter) -> bool:
        """Whether the letter matches, apart from `since_ms`: the stream is read from that time on."""
        return (
            self.subject in (None, letter.original_subject, without_tenant(letter.original_subject))
            and (self.reason is None or self.reason.lower() in f"{letter.reason} {letter.error_code}".lower())
            and (self.tenant_id is None or letter.tenant_id == self.tenant_id)
        )


class Outcome(StrEnum):
    """Outcome of a redrive."""

    REDRIVEN = "redriven"
    DUPLICATE = "duplicate"
    """The stream already has the redrive of this dead letter, by another operator or an earlier try."""
    NO_PAYLOAD = "no_payload"
    """The message itself is neither in the dead letter nor in its stream any more."""
    FOREIGN = "foreign"
    """The dead letter belongs to a subject that the router does not read."""
    FAILED = "failed"


class Redriven(Struct, frozen=True):
    """Redrive of one dead letter."""

    sequence: int
    subject: str
    outcome: Outcome
    message: str = ""


async def find_dead_letters(dlq: History, chosen: Filter, *, maximum: int) -> list[StoredDeadLetter]:
    """The newest `maximum` dead letters that match, newest first.

    :raises BusError: the DLQ could not be read.
    """
    newest: deque[StoredDeadLetter] = deque(maxlen=maximum)
    async for batch in dlq.read(since_ms=chosen.since_ms):
        for message in batch:
            found = _found(message)
            if found is not None and chosen.fits(found.letter):
                newest.append(found)
    return list(reversed(newest))


async def get_dead_letter(dlq: History, sequence: int) -> StoredDeadLetter | None:
    """The dead letter with that sequence; None: there is none, or the router did not write it.

    :raises BusError: the DLQ could not be read.
    """
    message = await dlq.get(sequence)
    return None if message is None else _found(message)


def _found(message: StoredMessage) -> StoredDeadLetter | None:
    decoded = decode_dead_letter(message.data)
    if decoded is None:
        return None
    return StoredDeadLetter(
        sequence=message.sequence,
        at_ms=message.at_ms,
        message_id=message.message_id,
        original_msg_id=message.headers.get("x-original-msg-id"),
        letter=decoded,
    )


class Original(Struct, frozen=True):
    """The message that became a dead letter."""

    payload: bytes
    headers: Mapping[str, str]


async def original_message(found: StoredDeadLetter, origins: Mapping[str, History]) -> Original | None:
    """The original message: from the dead letter, else from its stream; None: only its hash is left.

    :raises BusError: the stream could not be read.
    """
    letter = found.letter
    content_type = letter.context.get("content_type")
    if letter.payload is not None:
        return Original(b64decode(letter.payload), {"Content-Type": content_type} if content_type else {})
    history, sequence = origins.get(without_tenant(letter.original_subject)), letter.context.get("stream_sequence")
    message = await history.get(sequence) if history is not None and isinstance(sequence, int) else None
    if message is None or sha256(message.data).hexdigest() != letter.payload_sha256:
        return None
    return Original(message.data, {k: v for k, v in message.headers.items() if k != "Nats-Msg-Id"})


class Redrive:
    """Redrives dead letters.

    `origins`: the stream of each open subject that a message may return to; messages that are bound to a tenant return
    to the tenant's. `by`: the operator. `keep`: leave the dead letters in the DLQ.
    """

    def __init__(
        self, dlq: History, origins: Mapping[str, History], publish: Publish, *, by: str, keep: bool = False
    ) -> None:
        self._dlq = dlq
        self._origins = origins
        self._publish = publish
        self._by = by
        self._keep = keep

    async def __call__(self, found: StoredDeadLetter) -> Redriven:
        """Redrive one dead letter. A NATS fault is an outcome, not an exception, so a caller can continue with the next
        dead letter.
        """
        subject = found.letter.original_subject
        if without_tenant(subject) not in self._origins:
            return Redriven(found.sequence, subject, Outcome.FOREIGN, "the fleet does not read this subject")
        try:
            return await self._send(found, subject)
        except BusError as fault:
            return Redriven(found.sequence, subject, Outcome.FAILED, str(fault))

    async def _send(self, found: StoredDeadLetter, subject: str) -> Redriven:
        message = await original_message(found, self._origins)
        if message is None:
            why = "only the message's hash is left; set ROUTER_DEAD_LETTER_PAYLOADS=true to keep future messages"
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
        match published:
            case Published.REFUSED | Published.UNANSWERED | Published.UNSENT:
                return Redriven(found.sequence, subject, Outcome.FAILED, "the stream refused the message")
            case Published.STORED:
                outcome = Outcome.REDRIVEN
            case Published.DUPLICATE:
                outcome = Outcome.DUPLICATE
            case _:
                assert_never(published)
        if not self._keep:
            await self._dlq.delete(found.sequence)
        return Redriven(found.sequence, subject, outcome)
