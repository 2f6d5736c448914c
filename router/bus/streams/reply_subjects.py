"""Which reply subjects the router publishes to.

The caller chooses the reply subject, and the router publishes to it with its own rights. Without these rules a client
could use the router to write to subjects that NATS permissions keep from it:

- Subjects with a passing prefix are answered: the prefixes of ROUTER_REPLY_PREFIXES, else inboxes (`_INBOX.`) and the
  prefixes that the server puts before a reply subject (`_R_.` for an import, `_GR_.` behind a gateway).
- With ROUTER_REPLY_PREFIXES no other subject is answered. A gateway may wrap the reply subject of a young subscription
  (`_GR_.`); then the wrapped one counts. The server lets no client send such a reply subject itself.
- Other subjects are answered unless they begin with `$`, are below JetStream's API (ROUTER_NATS_JS_API_PREFIX), are
  the fleet's, or are covered by a stream of the account.

The streams are those of the last list; the stream keeper reads it at boot and every 30 s. No request waits for
JetStream. The decide endpoint checks the passing prefixes itself, in about 90 ns a request; any other subject costs 2
to 4 µs.
"""

from collections.abc import Callable, Mapping, Sequence

from router.bus.streams.specs import matches
from router.domain.reply_refusal import GATEWAY, PASSING, ReplyRefusal
from router.wire import subjects

_WILDCARDS = ("*", ">")


class ReplySubjects:
    """The rules of this pod; see the module. `on_refused(subject, reply, reason)` is called for each dropped request.

    `js_api_prefix`: the first tokens of JetStream's API, if they are not `$JS…`.
    An endpoint answers a reply subject that starts with one of `passing`, and asks `admits` about any other.
    """

    def __init__(
        self,
        prefixes: Sequence[str] = (),
        on_refused: Callable[[bytes, bytes, ReplyRefusal], None] = lambda _subject, _reply, _reason: None,
        js_api_prefix: str | None = None,
    ) -> None:
        self.passing = tuple(prefix.encode() for prefix in prefixes or PASSING)
        self._only_listed = bool(prefixes)
        self._on_refused = on_refused
        self._system = ("$",) if js_api_prefix is None else ("$", f"{js_api_prefix}.")
        self._streams: dict[str, tuple[str, ...]] | None = None
        # The subjects of the streams by their first token; those with a wildcard there are in every group's search.
        self._by_token: dict[str, list[str]] = {}

    def admits(self, reply: bytes, subject: bytes) -> bool:
        """Whether to answer a request to `subject` whose reply subject has no passing prefix; reports a refusal."""
        reason = self._refusal(reply.decode("utf-8", errors="replace"))
        if reason is None:
            return True
        self._on_refused(subject, reply, reason)
        return False

    def _refusal(self, reply: str) -> ReplyRefusal | None:
        if self._only_listed:
            wrapped = reply.split(".", 3)[3:] if reply.startswith(GATEWAY) else []
            listed = any(subject.encode().startswith(self.passing) for subject in wrapped)
            return None if listed else ReplyRefusal.NOT_LISTED
        if reply.startswith(self._system):
            return ReplyRefusal.SYSTEM
        if subjects.is_own(reply):
            return ReplyRefusal.FLEET
        if self._streams is None:
            return ReplyRefusal.UNKNOWN
        first = reply.partition(".")[0]
        for token in (first, *_WILDCARDS):
            if any(matches(pattern, subject=reply) for pattern in self._by_token.get(token, ())):
                return ReplyRefusal.STREAM
        return None

    def set_streams(self, streams: Mapping[str, tuple[str, ...]], missing: Sequence[str] = ()) -> None:
        """Use this list of all streams, name → subjects. Streams in `missing` exist; their last subjects count."""
        kept = {name: self._streams[name] for name in missing if self._streams and name in self._streams}
        self._streams = {**kept, **streams}
        self._by_token = {}
        for patterns in self._streams.values():
            for pattern in patterns:
                self._by_token.setdefault(pattern.partition(".")[0], []).append(pattern)

    def streams_unknown(self) -> None:
        """Continue without a list of streams, or with an earlier list."""
        if self._streams is None:
            self._streams = {}
