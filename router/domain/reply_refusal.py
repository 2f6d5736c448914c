"""Why a request is dropped for its reply subject."""

from enum import StrEnum


class ReplyRefusal(StrEnum):
    """The reason. The caller chose the reply subject, and the router would publish there with its own rights."""

    SYSTEM = "system"
    """It begins with `$`, or is below ROUTER_NATS_JS_API_PREFIX: an API of the NATS server, such as JetStream's."""
    FLEET = "fleet"
    """It is one of the fleet's subjects, or below one."""
    STREAM = "stream"
    """A stream of the account stores it."""
    NOT_LISTED = "not_listed"
    """ROUTER_REPLY_PREFIXES is set and has no prefix of it."""
    UNKNOWN = "unknown"
    """It is no inbox, and this pod has not read the list of streams yet."""
