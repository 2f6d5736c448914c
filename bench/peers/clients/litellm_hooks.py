"""What LiteLLM's proxy loads from beside its configuration: the keys of the bench, and a record of each call it bills.

The bounds are in PEER_LIMIT and PEER_BUDGET. Each successful call is a line of PEER_BILLS:
the request's id and its cost.
"""

import json
import os
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth

_BOUNDS: dict[str, dict[str, float]] = {
    "sk-limited": {"rpm_limit": int(os.environ["PEER_LIMIT"])},
    "sk-budgeted": {"max_budget": float(os.environ["PEER_BUDGET"])},
    "sk-open": {"rpm_limit": 1_000_000_000},
}


async def auth(request: Any, api_key: str) -> UserAPIKeyAuth:
    """The key that a request names, with its bound."""
    del request
    return UserAPIKeyAuth(api_key=api_key, **_BOUNDS[api_key])


class Bills(CustomLogger):  # type: ignore[misc]  # LiteLLM is not installed where types are checked
    """A line for each call that succeeded."""

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """See LiteLLM's custom callbacks."""
        del response_obj, start_time, end_time
        line = json.dumps([kwargs["messages"][-1]["content"], kwargs.get("response_cost")])
        _append(line)


def _append(line: str) -> None:
    with Path(os.environ["PEER_BILLS"]).open("a") as file:
        file.write(line + "\n")


bills = Bills()
