"""LiteLLM's proxy with one worker and mocked providers, and what a request to it is.

    python -m bench.peers.litellm_proxy PORT OUTSTANDING WARMUP_S MEASURE_S     a load command (see bench.measure)

Four deployments answer at once with LiteLLM's own `mock_response`. Keys come from `clients/litellm_hooks.py` by
`custom_auth`, because virtual keys need PostgreSQL; the bounds of a key are enforced in Redis, as with virtual keys.
"""

import asyncio
import json
import shutil
import sys
from pathlib import Path

from bench.peers.clients import closed_loop, litellm_hooks_file
from bench.peers.http_client import HttpClient
from bench.peers.install import Peers
from bench.processes import HOST, Process, free_port, greeted

PATH = "/v1/chat/completions"
START_S = 240
_ANSWER_S = 20
TOKENS = 20
"""What a mocked answer has; the price is set so that a request costs `USD`."""
USD = 0.02
SETTINGS = (
    "custom_auth with custom_auth_run_common_checks, fail_closed_budget_enforcement, cache type redis, simple-shuffle, "
    "mock_response"
)
_HEALTHY = b"GET /health/liveliness HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def config(redis_port: int) -> str:
    """The configuration file (JSON is YAML)."""
    deployment = {"api_key": "none", "mock_response": "ok", "input_cost_per_token": 0, "max_tokens": TOKENS}
    price = {"output_cost_per_token": USD / TOKENS}
    redis = {"host": HOST, "port": redis_port}
    document = {
        "model_list": [
            {"model_name": "chat", "litellm_params": {"model": f"openai/{name}", **deployment, **price}}
            for name in ("alpha", "beta", "gamma", "delta")
        ],
        "general_settings": {
            "master_key": "sk-master",
            "custom_auth": "litellm_hooks.auth",
            "custom_auth_run_common_checks": True,
            "fail_closed_budget_enforcement": True,
        },
        "litellm_settings": {
            "callbacks": ["litellm_hooks.bills"],
            "cache": True,
            "cache_params": {"type": "redis", **redis, "supported_call_types": []},
            "num_retries": 0,
            "telemetry": False,
        },
        "router_settings": {
            "routing_strategy": "simple-shuffle",
            "redis_host": HOST,
            "redis_port": redis_port,
            "num_retries": 0,
        },
    }
    return json.dumps(document, indent=1)


def start(
    peers: Peers, folder: Path, name: str, cpus: str, *, redis_port: int, limit: int, budget_cents: int
) -> tuple[Process, int]:
    """Start a proxy; its bills go to `bills` in the folder. Returns at once: see `wait`."""
    port = free_port()
    (folder / "config.yaml").write_text(config(redis_port))
    shutil.copy(litellm_hooks_file(), folder)
    env = {
        "PEER_LIMIT": str(limit),
        "PEER_BUDGET": f"{budget_cents / 100}",
        "PEER_BILLS": str(folder / "bills"),
        "LITELLM_RATE_LIMIT_WINDOW_SIZE": "3600",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "NO_DOCS": "True",
    }
    command = ["--config", str(folder / "config.yaml"), "--host", HOST, "--port", str(port), "--num_workers", "1"]
    return Process(name, [str(peers.program("litellm")), *command], cpus, folder, env), port


def wait(process: Process, port: int) -> None:
    """Until it answers, and its first call, which takes much longer than the later ones, is over."""
    process.wait_for(lambda: greeted(port, _HEALTHY, b" 200 ", _ANSWER_S), START_S)
    process.wait_for(lambda: greeted(port, _post(request("the first one")), b" 200 ", START_S), START_S)


def _post(body: bytes) -> bytes:
    fields = "Host: bench\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-open\r\n"
    return f"POST {PATH} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def request(text: str) -> bytes:
    """The body of a request whose id is its message."""
    body = {"model": "chat", "max_tokens": TOKENS, "messages": [{"role": "user", "content": text}]}
    return json.dumps(body).encode()


async def load(port: int, outstanding: int, warmup_s: float, measure_s: float) -> None:
    """The load command."""
    client = HttpClient(port)

    async def operation(number: int) -> str:
        status, _ = await client.post(PATH, "sk-open", request(f"request {number}"))
        return "ok" if status == 200 else str(status)

    await closed_loop.run(operation, outstanding, warmup_s, measure_s)
    client.close()


if __name__ == "__main__":
    asyncio.run(load(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
