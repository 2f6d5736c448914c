"""Error codes: the numbers that gateways answer with."""

import pytest

from router.domain.decide.decision import Code
from router.wire.codes import NUMBERS

# HTTP status → gRPC status, as google.rpc.Code maps them to HTTP.
GRPC_OF = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14, 504: 4}


@pytest.mark.parametrize("code", Code)
def test_http_and_grpc_say_the_same(code: Code) -> None:
    """Each code has an HTTP error status and the gRPC status that belongs to it."""
    assert NUMBERS[code].grpc == GRPC_OF[NUMBERS[code].http]
