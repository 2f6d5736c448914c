"""The subjects that each party needs in NATS: one table for the permissions that `router acl nats` prints.

`tests/bus/client/test_rights.py` compares the JetStream API with the calls in the code, and fleet tests run under it.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from router.bus.announce import SUBJECT as ANNOUNCEMENTS
from router.bus.requests.reply_subjects import PASSING
from router.bus.streams.consumers import REQUEST_SUBJECTS
from router.bus.streams.specs import ConsumerSpec, StreamSpec
from router.domain.access import HOLDS, PLACEHOLDER, Party
from router.wire import subjects

_NOT_BY_PODS = frozenset({"ack", "result"})


class Account(Struct, frozen=True):
    """What the settings say about the account. `tenant`: hold callers and workers to this tenant."""

    streams: Sequence[StreamSpec]
    consumers: Sequence[ConsumerSpec]
    inbox: str = "_INBOX"
    api: str = "$JS.API"
    reply_prefixes: Sequence[str] = ()
    result_prefixes: Sequence[str] = ()
    tenant: str | None = None

    def stream(self, kind: str) -> str:
        """The name of the stream of a kind."""
        return next(s.name for s in self.streams if s.kind == kind)


class Subjects(Struct, frozen=True):
    """What a party may publish and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def rights(party: Party, account: Account) -> Subjects:
    """The least rights of a party."""
    inbox = f"{account.inbox}.>"
    match party:
        case Party.POD:
            return _subjects(_of_pod(account), [*_served(), ANNOUNCEMENTS, *_FROM_WORKERS, inbox])
        case Party.WORKER:
            return _subjects(_of_worker(account), [*_assigned(account), inbox])
        case Party.CALLER:
            return _subjects([*_asked(account), *_reported(account)], [inbox])
        case Party.OPERATOR:
            return _subjects(_of_operator(account), [f"{subjects.ALERT}.*", inbox])
        case Party.COMMAND_LINE:
            return _subjects(_of_command_line(account), [f"{subjects.ALERT}.*", inbox])


def authorization(account: Account, parties: Iterable[Party] = Party) -> str:
    """The users as a block of a NATS server's configuration."""
    users = "\n".join(f"    # {p}: {HOLDS[p]}\n{_user(p, rights(p, account))}" for p in parties)
    return f"authorization {{\n  users: [\n{users}\n  ]\n}}"


def _user(party: Party, allowed: Subjects) -> str:
    publish, subscribe = (
        "\n".join(f'          "{subject}"' for subject in of) for of in (allowed.publish, allowed.subscribe)
    )
    return (
        f'    {{ user: "router-{party}", password: "{PLACEHOLDER}", permissions: {{\n'
        f"        publish: {{ allow: [\n{publish}\n        ] }}\n"
        f"        subscribe: {{ allow: [\n{subscribe}\n        ] }}\n"
        "      } }"
    )


_FROM_WORKERS = (subjects.HEARTBEAT, subjects.WORKER_DEAD_LETTER)


def _subjects(publish: Iterable[str], subscribe: Iterable[str]) -> Subjects:
    return Subjects(_narrow(publish), _narrow(subscribe))


def _narrow(patterns: Iterable[str]) -> tuple[str, ...]:
    """Each pattern once, in order; without those that another one covers by `>`."""
    unique = list(dict.fromkeys(patterns))
    wide = [p[:-1] for p in unique if p.endswith(".>")]
    return tuple(p for p in unique if not any(p.startswith(w) and p != f"{w}>" for w in wide))


def _served() -> tuple[str, ...]:
    """The request subjects that pods answer; extensions answer theirs."""
    acts = f"{subjects.ADMIN}.>"
    others = [s for s in REQUEST_SUBJECTS if not s.startswith(subjects.EXTENSION) and s != acts]
    return (*others, f"{subjects.ADMIN}.*")


def _of_pod(account: Account) -> list[str]:
    written = [s for spec in account.streams if spec.kind not in _NOT_BY_PODS for s in spec.subjects]
    # Without a list, pods answer every inbox: the usual ones, and those of the account's own prefix.
    answered = account.reply_prefixes or (*PASSING, f"{account.inbox}.")
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
    return created + [s for c in account.consumers[1:] for s in _pulling(account, c)]


def _pulling(account: Account, consumer: ConsumerSpec) -> list[str]:
    name = f"{consumer.stream}.{consumer.name}"
    # Behind a leaf node an ack's subject has domain and account in front of the stream.
    return [f"{account.api}.CONSUMER.MSG.NEXT.{name}", f"$JS.ACK.{name}.>", f"$JS.ACK.*.*.{name}.>"]


def _history(account: Account, kind: str) -> list[str]:
    """Reading a stream from the beginning, with a consumer that goes afterwards."""
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
    """Subjects of assignments, for workers with a plain subscription."""
    return [s for spec in account.streams if spec.kind == "assign" for s in spec.subjects]


def _of_worker(account: Account) -> list[str]:
    return [*_reported(account), *_FROM_WORKERS, *_pulling(account, account.consumers[0])]


def _of_operator(account: Account) -> list[str]:
    return [f"{subjects.ADMIN}.*", subjects.GET_DECISION, subjects.BACKPRESSURE, *_history(account, "alert")]


def _of_command_line(account: Account) -> list[str]:
    api = account.api
    of_messages = [f"{api}.STREAM.MSG.{verb}.{account.stream('dlq')}" for verb in ("GET", "DELETE")]
    return [
        *_of_operator(account),
        subjects.DECIDE,
        subjects.RESULT,
        subjects.ACK,
        *(subjects.every_tenant(s) for s in (subjects.RESULT, subjects.ACK)),
        ANNOUNCEMENTS,
        f"{api}.INFO",
        *_checks(account),
        *(s for kind in ("dlq", "result", "ack", "usage") for s in _history(account, kind)),
        *(f"{api}.STREAM.MSG.GET.{account.stream(kind)}" for kind in ("result", "ack")),
        *of_messages,
    ]
