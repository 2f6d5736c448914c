"""The file of API keys: JSON, with the SHA-256 of each key and never the key itself.

    {"keys": [{"id": "1f3a…", "hash": "sha256:9b2c…", "principal": "billing", "role": "caller", "tenants": ["acme"]}]}

A key is `rk_<id>_<secret>`. Tenants `["*"]`: every tenant.
"""

import re
from hashlib import sha256

import orjson

from router.domain.api_key import ApiKey, ApiRole, Asker
from router.domain.json import JsonObject, JsonValue
from router.errors import InvalidInput
from router.wire.fields import identifier
from router.wire.problems import Problems, named
from router.wire.request.identity import fits_subject

MAX_KEYS = 10_000
EVERY_TENANT = "*"
_ROLES = {role.value: role for role in ApiRole}
_FIELDS = ("id", "hash", "principal", "role", "tenants")
_KEY = re.compile(r"rk_([0-9a-f]{8,32})_([A-Za-z0-9_-]{32,128})")
_id = re.compile(r"[0-9a-f]{8,32}").fullmatch
_hash = re.compile(r"sha256:([0-9a-f]{64})").fullmatch


def is_principal(name: str) -> bool:
    """Whether a key can have this principal."""
    return name.isprintable() and 0 < len(name) <= 128


def key_id(key: str) -> str | None:
    """Return the id that a key names; None: this is not the form of a key."""
    match = _KEY.fullmatch(key)
    return None if match is None else match[1]


def digest_of(key: str) -> bytes:
    """Return the SHA-256 of a key, as the file has it."""
    return sha256(key.encode()).digest()


def decode_keys(data: bytes) -> list[ApiKey]:
    """Read a key file.

    :raises InvalidInput: with every problem.
    """
    problems = Problems()
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as fault:
        problems.add("", message=f"is not JSON: {fault}", hint='write {"keys": []}, or use `router key create`')
        raise InvalidInput([p for _, p in problems]) from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or document.keys() - {"keys"}:
        problems.add("", message="is not an object with the one field `keys`, a list", hint='write {"keys": []}')
        entries = []
    if len(entries) > MAX_KEYS:
        problems.add("keys", message=f"has {len(entries):,} entries", hint=f"keep at most {MAX_KEYS:,}")
        entries = []
    keys = [_key(entry, f"keys[{n}]", problems) for n, entry in enumerate(entries)]
    seen: set[str] = set()
    for n, key in enumerate(keys):
        if key is not None and key.id in seen:
            problems.add(f"keys[{n}].id", message="is the id of an earlier key", hint="remove one of the two")
        elif key is not None:
            seen.add(key.id)
    if problems:
        raise InvalidInput([p for _, p in problems])
    return [key for key in keys if key is not None]


def encode_keys(keys: list[ApiKey]) -> bytes:
    """Write a key file."""
    entries: list[JsonValue] = [
        {
            "id": key.id,
            "hash": f"sha256:{key.digest.hex()}",
            "principal": key.asker.principal,
            "role": key.asker.role.value,
            "tenants": tenants_of(key.asker),
        }
        for key in keys
    ]
    document: JsonObject = {"keys": entries}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def tenants_of(asker: Asker) -> list[JsonValue]:
    """Return the tenants as the file names them."""
    return [EVERY_TENANT] if asker.tenants is None else [*sorted(asker.tenants)]


def _key(entry: object, path: str, problems: Problems) -> ApiKey | None:
    if not isinstance(entry, dict):
        problems.add(path, message=f"is {named(entry)}", hint="write an object")
        return None
    before = len(problems)
    for field in sorted(entry.keys() - set(_FIELDS)):
        problems.add(f"{path}.{field}", message="is unknown", hint=f"the fields are {', '.join(_FIELDS)}")
    own_id, digest = _text(entry.get("id")), _hash(_text(entry.get("hash")))
    if not _id(own_id):
        problems.add(f"{path}.id", message="is not 8 to 32 of 0-9 a-f", hint="use `router key create`")
    if digest is None:
        problems.add(f"{path}.hash", message="is not sha256: and 64 hex digits", hint="use `router key create`")
    principal = _text(entry.get("principal"))
    if not is_principal(principal):
        problems.add(f"{path}.principal", message="is not a name", hint="write 1 to 128 printable characters")
    role = _ROLES.get(_text(entry.get("role")))
    if role is None:
        problems.add(f"{path}.role", message="is unknown", hint=f"the roles are {', '.join(ApiRole)}")
    tenants = _tenants(entry.get("tenants"), f"{path}.tenants", problems)
    if len(problems) > before or digest is None or role is None:
        return None
    return ApiKey(own_id, bytes.fromhex(digest[1]), Asker(principal, role, tenants))


def _tenants(value: object, path: str, problems: Problems) -> frozenset[str] | None:
    if value == [EVERY_TENANT]:
        return None
    if not isinstance(value, list) or not value:
        problems.add(path, message="is not a list of tenants", hint='name them, or write ["*"] for every tenant')
        return frozenset()
    names = [identifier(problems, f"{path}[{n}]", name) for n, name in enumerate(value)]
    for n, name in enumerate(names):
        if name is None and value[n] is None:
            problems.add(f"{path}[{n}]", message="is null", hint="name a tenant")
        elif name is not None and not fits_subject(name):
            problems.add(f"{path}[{n}]", message="has an empty part", hint="a key can have tenants without empty parts")
    return frozenset(name for name in names if name is not None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
