"""Error codes as HTTP and gRPC status codes, and as older gateways understand them."""

from typing import NamedTuple

from router.domain.decision import Code


class Numbers(NamedTuple):
    """The HTTP status code and the gRPC status code of an error code."""

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

# An older gateway turns every code that it does not know into HTTP 200. It knows the codes that are not listed here.
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
    """Return the code that an older gateway understands; put the original code into `details.code` then."""
    return _LEGACY.get(code, code)
