"""Logging in with a credentials file, as an operator's NATS hands them out."""

import asyncio
from pathlib import Path

import nkeys  # type: ignore[import-untyped]  # it carries no types

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from tests.bus.conftest import only_the_first_connects
from tests.nats_jwt import pair, token
from tests.servers import NatsProcess


async def test_a_credentials_file_logs_in(servers: None, tmp_path: Path) -> None:
    """The user that the account signed is let in and can talk; the seed of another user is not."""
    operator, operator_id, _ = pair(nkeys.PREFIX_BYTE_OPERATOR)
    account, account_id, _ = pair(nkeys.PREFIX_BYTE_ACCOUNT)
    _, user_id, seed = pair(nkeys.PREFIX_BYTE_USER)
    _, _, other_seed = pair(nkeys.PREFIX_BYTE_USER)
    unlimited: dict[str, object] = dict.fromkeys(("subs", "data", "payload", "conn", "imports", "exports", "leaf"), -1)
    server = NatsProcess(
        tmp_path / "data",
        extra=f"operator: {token(operator, operator_id, {'type': 'operator', 'version': 2})}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account_id}: "
        f"{token(operator, account_id, {'type': 'account', 'version': 2, 'limits': unlimited})} }}\n"
        "jetstream: disabled",
    )
    jwt = token(account, user_id, {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1})
    files = []
    for name, secret in (("good", seed), ("bad", other_seed)):
        files.append(tmp_path / f"{name}.creds")
        files[-1].write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{secret}\n------END USER NKEY SEED------\n"
        )
    await asyncio.to_thread(server.start)
    good, bad = (Bus(BusOptions((server.url,), creds=str(file))) for file in files)
    await only_the_first_connects(server, good, bad)
