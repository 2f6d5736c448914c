"""The subjects that each party needs in NATS: one table for the permissions that `router acl nats` prints.

Each user has an inbox prefix of its own, so no user receives the replies to another. Pods answer all of these prefixes.
`tests/bus/test_rights.py` compares the JetStream API with the calls in the code, and fleet tests run under the printed
permissions.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from router.bus.announce import SUBJECT as ANNOUNCEMENTS
from router.bus.streams.consumers import REQUEST_SUBJECTS, WORKERS
from router.bus.streams.specs import ConsumerSpec, StreamSpec
from router.domain.access import HOLDS, PLACEHOLDER, Party
from router.domain.reply_refusal import GATEWAY, PASSING
from router.wire import subjects

_NOT_BY_PODS = frozenset({"ack", "result"})
_OF_ONE_TENANT = (Party.CALLER, Party.WORKER)


class Account(Struct, frozen=True):
    """The settings that the permissions depend on.

    `inbox` is the prefix of the pods. `tenant`: restrict callers and workers to this tenant. `consumer`: where workers
    take assignments from. `acts`: the admin acts that each role may use.
    """

    streams: Sequence[StreamSpec]
    consumers: Sequence[ConsumerSpec]
    acts: Mapping[Party, Sequence[str]]
    inbox: str = "_INBOX"
    api: str = "$JS.API"
    reply_prefixes: Sequence[str] = ()
    result_prefixes: Sequence[str] = ()
    tenant: str | None = None
    consumer: str = WORKERS

    def stream(self, kind: str) -> str:
        """The name of the stream of a kind."""
        return next(s.name for s in self.streams if s.kind == kind)


class User(Struct, frozen=True, kw_only=True):
    """A user of NATS: what it may publish and subscribe to. Its inboxes begin with `inbox_prefix`."""

    name: str
    inbox_prefix: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def user(party: Party, account: Account, name: str | None = None) -> User:
    """A user with the least rights of a party. `name` distinguishes it from other users of the party."""
    named = name or _name(party, account)
    inbox = account.inbox if party is Party.POD else _inbox(named, account)
    publish, subscribe = _subjects(party, account)
    return User(name=named, inbox_prefix=inbox, publish=_narrow(publish), subscribe=_narrow([*subscribe, f"{inbox}.>"]))


def authorization(users: Iterable[tuple[Party, User]]) -> str:
    """The users as a block of a NATS server's configuration."""
    blocks = "\n".join(f"    # {party}: {HOLDS[party]}; {_prefix_of(party, u)}\n{_block(u)}" for party, u in users)
    return f"authorization {{\n  users: [\n{blocks}\n  ]\n}}"


def _prefix_of(party: Party, u: User) -> str:
    if party is Party.POD and u.inbox_prefix == "_INBOX":
        return "it hears every inbox: with ROUTER_NATS_INBOX_PREFIX, also here, only its own"
    return f"inbox prefix {u.inbox_prefix} (ROUTER_NATS_INBOX_PREFIX of `router` commands)"


def _block(u: User) -> str:
    publish, subscribe = ("\n".join(f'          "{subject}"' for subject in of) for of in (u.publish, u.subscribe))
    return (
        f'    {{ user: "{u.name}", password: "{PLACEHOLDER}", permissions: {{\n'
        f"        publish: {{ allow: [\n{publish}\n        ] }}\n"
        f"        subscribe: {{ allow: [\n{subscribe}\n        ] }}\n"
        "      } }"
    )


def _name(party: Party, account: Account) -> str:
    bound = account.tenant is not None and party in _OF_ONE_TENANT
    return f"router-{party}-{account.tenant}" if bound else f"router-{party}"


def _inbox(name: str, account: Account) -> str:
    """A prefix that pods answer. A dot in the name would put the inboxes of one user below those of another."""
    first = account.reply_prefixes[0] if account.reply_prefixes else subjects.INBOX
    return f"{first}{name.replace('.', '~')}"


def _narrow(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns in order, without repeats, and without those that another pattern covers by `>`."""
    unique = list(dict.fromkeys(patterns))
    wide = [p[:-1] for p in unique if p.endswith(".>")]
    return tuple(p for p in unique if not any(p.startswith(w) and p != f"{w}>" for w in wide))


def _subjects(party: Party, account: Account) -> tuple[list[str], list[str]]:
    """What a party may publish, and subscribe to beside its inboxes."""
    followed = [f"{subjects.ALERT}.*", subjects.USAGE]
    match party:
        case Party.POD:
            return _of_pod(account), [*_served(), ANNOUNCEMENTS, *_FROM_WORKERS]
        case Party.WORKER:
            return _of_worker(account), _assigned(account)
        case Party.CALLER:
            return [*_asked(account), *_reported(account)], []
        case Party.VIEWER:
            return _of_viewer(account), followed
        case Party.OPERATOR:
            return _of_operator(account), followed
        case Party.ADMIN:
            return _of_admin(account), followed


_FROM_WORKERS = (subjects.HEARTBEAT, subjects.WORKER_DEAD_LETTER)


def _served() -> tuple[str, ...]:
    """The request subjects that pods answer; extensions answer theirs."""
    acts = f"{subjects.ADMIN}.>"
    others = [s for s in REQUEST_SUBJECTS if not s.startswith(subjects.EXTENSION) and s != acts]
    return (*others, f"{subjects.ADMIN}.*")


def _of_pod(account: Account) -> list[str]:
    written = [s for spec in account.streams if spec.kind not in _NOT_BY_PODS for s in spec.subjects]
    # Without a list, pods answer every inbox: the usual ones, and those of the account's own prefix.
    answered = (*account.reply_prefixes, GATEWAY) if account.reply_prefixes else (*PASSING, f"{account.inbox}.")
    return [
        *(f"{prefix}>" for prefix in (*answered, *account.result_prefixes)),
        # A caller may choose any of these for its assignments (`options.assignment_subject`).
        "caf.exec.>",
        *written,
        f"{subjects.EXTENSION}.>",
        ANNOUNCEMENTS,
        *(f"{account.api}.STREAM.CREATE.{s.name}" for s in account.streams),
        *_of_consumers(account),
        *_checks(account),
        f"{account.api}.STREAM.LIST",
        *_history(account, "usage"),
    ]


def _checks(account: Account) -> list[str]:
    """Reading the streams and durable consumers."""
    api = account.api
    return [
        f"{api}.STREAM.NAMES",
        f"{api}.STREAM.INFO.*",
        *(f"{api}.CONSUMER.INFO.{c.stream}.{c.name}" for c in account.consumers),
    ]


def _of_consumers(account: Account) -> list[str]:
    """Creating the durable consumers, and those that pods pull from."""
    created = [f"{account.api}.CONSUMER.DURABLE.CREATE.{c.stream}.{c.name}" for c in account.consumers]
    return created + [s for c in account.consumers[1:] for s in _pulling(account, c.stream, consumer=c.name)]


def _pulling(account: Account, stream: str, *, consumer: str) -> list[str]:
    name = f"{stream}.{consumer}"
    # Behind a leaf node an ack's subject has domain and account in front of the stream.
    return [f"{account.api}.CONSUMER.MSG.NEXT.{name}", f"$JS.ACK.{name}.>", f"$JS.ACK.*.*.{name}.>"]


def _history(account: Account, kind: str) -> list[str]:
    """Reading a stream from the beginning, with an ephemeral consumer."""
    api, stream = account.api, account.stream(kind)
    return [f"{api}.CONSUMER.{verb}" for verb in (f"CREATE.{stream}", f"MSG.NEXT.{stream}.*", f"DELETE.{stream}.*")]


def _asked(account: Account) -> list[str]:
    doors = (subjects.DECIDE, subjects.GET_DECISION)
    if account.tenant is not None:
        return [*(f"{door}.{account.tenant}" for door in doors), subjects.BACKPRESSURE]
    return [*doors, *(f"{door}.>" for door in doors), subjects.BACKPRESSURE]


def _reported(account: Account) -> list[str]:
    """Results and acks."""
    if account.tenant is not None:
        return [f"{s}{subjects.OF_TENANT}{account.tenant}" for s in (subjects.RESULT, subjects.ACK)]
    return [p for s in (subjects.RESULT, subjects.ACK) for p in (s, subjects.every_tenant(s))]


def _assigned(account: Account) -> list[str]:
    """Subjects of assignments, for workers with a plain subscription; those of one tenant have a consumer."""
    if account.tenant is not None:
        return []
    return [s for spec in account.streams if spec.kind == "assign" for s in spec.subjects]


def _of_worker(account: Account) -> list[str]:
    pulled = _pulling(account, account.stream("assign"), consumer=account.consumer)
    return [*_reported(account), *_FROM_WORKERS, *pulled]


def _of_viewer(account: Account) -> list[str]:
    read = [s for kind in ("alert", "dlq", "result", "ack", "usage") for s in _history(account, kind)]
    shown = [f"{account.api}.STREAM.MSG.GET.{account.stream(kind)}" for kind in ("dlq", "result", "ack")]
    acts = [f"{subjects.ADMIN}.{act}" for act in account.acts[Party.VIEWER]]
    return [*acts, subjects.GET_DECISION, subjects.BACKPRESSURE, *read, *shown]


def _of_operator(account: Account) -> list[str]:
    acts = [f"{subjects.ADMIN}.{act}" for act in account.acts[Party.OPERATOR]]
    again = [p for s in (subjects.RESULT, subjects.ACK) for p in (s, subjects.every_tenant(s))]
    return [*acts, *_of_viewer(account), *again, f"{account.api}.STREAM.MSG.DELETE.{account.stream('dlq')}"]


def _of_admin(account: Account) -> list[str]:
    every_act = f"{subjects.ADMIN}."
    others = [s for s in _of_operator(account) if not s.startswith(every_act)]
    asked = (subjects.DECIDE, f"{subjects.DECIDE}.>", f"{subjects.GET_DECISION}.>")
    return [f"{every_act}*", *others, *asked, ANNOUNCEMENTS, f"{account.api}.INFO", *_checks(account)]
