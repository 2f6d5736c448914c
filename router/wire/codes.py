"""Error codes as HTTP and gRPC status codes, and as older gateways understand them."""

from typing import NamedTuple

from router.domain.decide.decision import Code


class Numbers(NamedTuple):
    """The HTTP status code and the gRPC status code of an error code."""

    http: int
    grpc: int


NUMBERS: dict[Code, Numbers] = {
    Code.INVALID_REQUEST: Numbers(http=400, grpc=3),
    Code.UNAUTHORIZED: Numbers(http=401, grpc=16),
    Code.POLICY_NOT_FOUND: Numbers(http=404, grpc=5),
    Code.EXTENSION_NOT_FOUND: Numbers(http=404, grpc=5),
    Code.DECISION_NOT_FOUND: Numbers(http=404, grpc=5),
    Code.RATE_LIMIT_EXCEEDED: Numbers(http=429, grpc=8),
    Code.QUOTA_EXCEEDED: Numbers(http=429, grpc=8),
    Code.SERVICE_OVERLOADED: Numbers(http=503, grpc=14),
    Code.UNAVAILABLE: Numbers(http=503, grpc=14),
    Code.VALIDATOR_BLOCKED: Numbers(http=403, grpc=7),
    Code.EXTENSION_UNAVAILABLE: Numbers(http=503, grpc=14),
    Code.EXTENSION_TIMEOUT: Numbers(http=504, grpc=4),
    Code.EXTENSION_ERROR: Numbers(http=500, grpc=13),
    Code.POST_PROCESSOR_FAILED: Numbers(http=500, grpc=13),
    Code.DECISION_FAILED: Numbers(http=500, grpc=13),
    Code.INTERNAL: Numbers(http=500, grpc=13),
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
