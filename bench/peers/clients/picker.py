"""LiteLLM's Router choosing a deployment in this process, without a call. Run by the peers' Python:

    python -m bench.peers.clients.picker STRATEGY REDIS_PORT OUTSTANDING WARMUP_S MEASURE_S

A load command. STRATEGY is `simple-shuffle`, or `least-busy`, which reads its counts of running calls from Redis.
"""

import asyncio
import os
import sys

from bench.peers.clients import closed_loop

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices
WEIGHTS = {"alpha": 40, "beta": 30, "gamma": 20, "delta": 10}
_MESSAGES = [{"role": "user", "content": "Say why the sky is blue, in one sentence."}]


async def main(strategy: str, port: int, outstanding: int, warmup_s: float, measure_s: float) -> None:
    """Load."""
    from litellm import Router  # noqa: PLC0415 (it reads the environment when it is imported)

    models = [
        {"model_name": "chat", "litellm_params": {"model": f"openai/{name}", "api_key": "none", "weight": weight}}
        for name, weight in WEIGHTS.items()
    ]
    redis = {"redis_host": "127.0.0.1", "redis_port": port} if strategy == "least-busy" else {}
    router = Router(model_list=models, routing_strategy=strategy, **redis)

    async def operation(number: int) -> str:
        del number
        found = await router.async_get_available_deployment("chat", request_kwargs={}, messages=_MESSAGES)
        return "ok" if found else "none"

    await closed_loop.run(operation, outstanding, warmup_s, measure_s)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
