"""Error codes as numbers, and as older gateways understand them. The one place that knows."""

from typing import NamedTuple

from router.domain.decision import Code


class Numbers(NamedTuple):
    """The HTTP status and the gRPC status code of an error code."""

    http: int
    grpc: int


NUMBERS: dict[Code, Numbers] = {
    Code.INVALID_REQUEST: Numbers(400, 3),
    Code.UNAUTHORIZED: Numbers(401, 16),
    Code.POLICY_NOT_FOUND: Numbers(404, 5),
    Code.EXTENSION_NOT_FOUND: Numbers(404, 5),
    Code.DECISION_NOT_FOUND: Numbers(404, 5),
    Code.RATE_LIMIT_EXCEEDED: Numbers(429, 8),
    Code.QUOTA_EXCEEDED: Numbers(429, 8),
    Code.SERVICE_OVERLOADED: Numbers(503, 14),
    Code.UNAVAILABLE: Numbers(503, 14),
    Code.VALIDATOR_BLOCKED: Numbers(403, 7),
    Code.EXTENSION_UNAVAILABLE: Numbers(503, 14),
    Code.EXTENSION_TIMEOUT: Numbers(504, 4),
    Code.EXTENSION_ERROR: Numbers(500, 13),
    Code.POST_PROCESSOR_FAILED: Numbers(500, 13),
    Code.DECISION_FAILED: Numbers(500, 13),
    Code.INTERNAL: Numbers(500, 13),
}

# An older gateway shows every code that it does not know as HTTP 200. A code that is not here is known to it.
_LEGACY: dict[Code, Code] = {
    Code.DECISION_NOT_FOUND: Code.POLICY_NOT_FOUND,
    Code.RATE_LIMIT_EXCEEDED: Code.EXTENSION_UNAVAILABLE,
    Code.QUOTA_EXCEEDED: Code.EXTENSION_UNAVAILABLE,
    Code.SERVICE_OVERLOADED: Code.EXTENSION_UNAVAILABLE,
    Code.UNAVAILABLE: Code.EXTENSION_UNAVAILABLE,
    Code.EXTENSION_TIMEOUT: Code.EXTENSION_UNAVAILABLE,
    Code.VALIDATOR_BLOCKED: Code.UNAUTHORIZED,
}


def legacy(code: Code) -> Code:
    """The code that an older gateway understands; the true one then belongs into `details.code`."""
    return _LEGACY.get(code, code)
