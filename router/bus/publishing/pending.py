"""A published message that is not settled yet."""

from collections.abc import Callable

from router.ports.bus import NO_ACK, Publication, Published


class Pending:
    """A message that is not settled yet. Times are loop time in seconds.

    `since`: how long the server has had the chance to answer. `unanswered`: a try had no answer, so a stream may hold
    the message.
    """

    __slots__ = (
        "block",
        "done",
        "give_up_at",
        "payload",
        "publication",
        "reason",
        "resend_at",
        "since",
        "subject",
        "token",
        "tries",
        "unanswered",
    )

    def __init__(
        self,
        publication: Publication,
        subject: bytes,
        block: bytes,
        done: Callable[[Published], None],
        now: float,
        give_up_s: float,
    ) -> None:
        self.publication, self.subject, self.block, self.done = publication, subject, block, done
        self.payload = publication.payload
        self.since = now
        within_s = publication.within_s
        self.give_up_at = now + (give_up_s if within_s is None else min(give_up_s, within_s))
        self.token = b""
        self.tries = 0
        self.resend_at = 0.0
        self.unanswered = False
        self.reason = NO_ACK

    @property
    def failure(self) -> Published:
        """The outcome if the message is given up now."""
        if not self.tries:
            return Published.UNSENT
        return Published.UNANSWERED if self.unanswered else Published.REFUSED
