"""Which reply subjects are answered without a look, and why a request is dropped for its own."""

from enum import StrEnum

GATEWAY = "_GR_."
"""A gateway puts it before a reply subject, with the cluster and the server: `_GR_.<cluster>.<server>.<reply>`."""
PASSING = ("_INBOX.", "_R_.", GATEWAY)
"""Reply subjects with these prefixes are answered, unless the settings name others."""


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
