"""Keys and JWTs of NATS, as an operator makes them."""

import base64
import json
import os

import nkeys  # type: ignore[import-untyped]  # it carries no types


def pair(kind: int) -> tuple[nkeys.KeyPair, str, str]:
    """A new key of an operator, account or user: the pair, its public key and its seed."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    keys = nkeys.from_seed(seed)
    return keys, keys.public_key.decode(), bytes(seed).decode()


def token(issuer: nkeys.KeyPair, subject: str, claims: dict[str, object]) -> str:
    """A JWT as NATS writes them."""
    parts = (
        {"typ": "JWT", "alg": "ed25519-nkey"},
        {"jti": "x", "iat": 1, "iss": issuer.public_key.decode(), "name": "n", "sub": subject, "nats": claims},
    )
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return f"{text}.{base64.urlsafe_b64encode(issuer.sign(text.encode())).rstrip(b'=').decode()}"
