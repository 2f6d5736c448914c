"""`router acl`: the least rights in Redis and NATS, for the settings of this place."""

from typing import Annotated

import typer

from router.cli.shared.names import tenant_in_subjects
from router.cli.shared.output import note, print_json, print_line
from router.cli.shared.target import JsonOption
from router.domain.access import HOLDS, PLACEHOLDER, Party

app = typer.Typer(no_args_is_help=True, help="Print the least rights that each party needs in Redis and NATS.")

PartyOption = Annotated[
    list[Party] | None, typer.Option("--for", help="The party, repeatable; all of them without it.")
]


@app.command()
def redis(party: PartyOption = None, json: JsonOption = False) -> None:
    """Print ACL users for Redis: standard output is an ACL file, which has no comments; notes go to standard error.

    They follow the settings: ROUTER_STORE_SCHEMA, ROUTER_REDIS_CLUSTER, ROUTER_WAIT_REPLICAS, the database of the URL.
    With ROUTER_REDIS_SENTINELS, the users of sentinels and replicas are printed, too.
    """
    from router.app.redis_nodes import redis_server
    from router.settings import load
    from router.store.servers.rights import REPLICA_IN_REDIS, SENTINEL_IN_REDIS, acl_rules

    settings = load()
    server = redis_server(settings)
    rules = {p: acl_rules(p, server) for p in party or Party}
    _print_users(rules, json=json)
    if json:
        return
    if settings.redis_sentinels and party is None:
        note("sentinel: the sentinels themselves (sentinel auth-user); replica: the replicas (masteruser)")
        print_line(f"user router-sentinel on >{PLACEHOLDER} {' '.join(SENTINEL_IN_REDIS.split())}")
        print_line(f"user router-replica on >{PLACEHOLDER} {REPLICA_IN_REDIS}")
        note("the parties have users in the sentinels, too: `router acl sentinel` prints them")
    note("the user `default` stays as it is: switch it off with the line `user default off`")


@app.command()
def sentinel(party: PartyOption = None, json: JsonOption = False) -> None:
    """Print ACL users for the sentinels, as an ACL file; notes go to standard error. They ask for the primary only."""
    from router.store.servers.rights import Server, acl_rules, sentinel_rules

    rules = {p: sentinel_rules() if acl_rules(p, Server()) else "" for p in party or Party}
    _print_users(rules, json=json)


@app.command()
def nats(
    party: PartyOption = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Restrict callers and workers to this tenant (`router worker --tenant`).", callback=tenant_in_subjects
        ),
    ] = None,
    consumer: Annotated[
        str, typer.Option(help="The consumer of stream ASSIGN from which workers take assignments.")
    ] = "workers",
    name: Annotated[
        str | None, typer.Option(help="The user's name, for one of several users of a party. Needs one --for.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print users with permissions for NATS, as a block of a server's configuration.

    They follow the settings: names and subjects of streams, inbox prefix, JetStream domain, allowed prefixes. Each user
    has an inbox prefix of its own, which its client must use.

    Example: router acl nats --for caller --name billing
    """
    import re

    import msgspec

    from router.app.adapter_settings import nats_account
    from router.bus.rights import authorization, user
    from router.settings import load

    if name is not None and (len(party or ()) != 1 or re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) is None):
        raise typer.BadParameter("give 1 to 64 of A-Z a-z 0-9 _ . - and exactly one --for", param_hint="--name")
    account = nats_account(load(), tenant, consumer=consumer)
    users = [(p, user(p, account, name)) for p in party or Party]
    if json:
        print_json({p.value: msgspec.to_builtins(u) for p, u in users})
        return
    if tenant is not None and consumer == "workers" and Party.WORKER in (party or Party):
        note("the consumer `workers` delivers the assignments of every tenant: name one of the tenant with --consumer")
    print_line(authorization(users))


def _print_users(rules: dict[Party, str], *, json: bool) -> None:
    if json:
        print_json({p.value: of_party for p, of_party in rules.items()})
        return
    for p, of_party in rules.items():
        note(f"{p}: {HOLDS[p]}" + ("" if of_party else "; needs nothing in Redis"))
        if of_party:
            print_line(f"user router-{p} on >{PLACEHOLDER} {of_party}")
