"""Inputs for decoders: good examples, changed a little. Quick: about 5 µs an input; all follows from the seed.

Hypothesis chooses better and takes a hundred times as long; tests/wire/test_fuzz.py has it.
"""

import random
import re
import struct
from collections.abc import Iterator, Sequence

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[\[\]{},:]|[^\[\]{},:"\s]+|\s+')
_JSON = (
    *(b"null", b"true", b"false", b"0", b"-1", b"1", b"1e999", b"1.5", b"-0", b"9" * 400, b"18446744073709551616"),
    *(
        b'""',
        b'" "',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xc3\xa9"',
        b'"\xff"',
        b'"' + b"x" * 300 + b'"',
        b"NaN",
        b"Infinity",
    ),
    *(b"[]", b"{}", b"[[]]", b'{"":0}', b"[" * 40, b'{"a":' * 40, b"{", b"}", b"]", b",", b":", b'"', b"\\"),
    *(b'"acme"', b'"1"', b'"success"', b'"tenant_id"', b'"version"', b'"options"', b'"a*"', b'"a.b"', b'"~"'),
)
_WORDS = (
    *tuple(
        struct.pack(">d", x)
        for x in (
            0.0,
            -0.0,
            1.0,
            -1.0,
            float("nan"),
            float("inf"),
            float("-inf"),
            1e300,
            -1e300,
            5e-324,
            2.0**53,
            1000000000000000.0,
        )
    ),
    bytes(8),
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\x80" * 8,
)
_BYTES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x20, 0x0A)


class Inputs:
    """Changed examples. `text`: they are JSON, and whole tokens are changed, too."""

    def __init__(self, examples: Sequence[bytes], seed: int, *, text: bool) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it shall be repeatable
        self._examples = list(examples)
        self._tokens = [_TOKENS.findall(e) for e in examples] if text else []
        self._text = text

    def take(self, count: int) -> Iterator[bytes]:
        """So many inputs."""
        draw = self._random.random
        for _ in range(count):
            data = self._tokens_changed() if self._text and draw() < 0.7 else self._bytes_changed()
            yield data

    def _tokens_changed(self) -> bytes:
        r = self._random
        tokens = list(r.choice(self._tokens))
        for _ in range(r.choice((1, 1, 1, 2, 4))):
            at = int(r.random() * len(tokens))
            act = r.random()
            if act < 0.6:
                tokens[at] = r.choice(_JSON)
            elif act < 0.7:
                tokens[at] = tokens[int(r.random() * len(tokens))]
            elif act < 0.8:
                tokens.insert(at, r.choice(_JSON))
            elif act < 0.9:
                tokens[at] = r.choice(r.choice(self._tokens))
            elif len(tokens) > 1:
                del tokens[at]
        return b"".join(tokens)

    def _bytes_changed(self) -> bytes:
        r = self._random
        data = bytearray(r.choice(self._examples))
        for _ in range(r.choice((1, 1, 2, 3, 8))):
            at = int(r.random() * (len(data) + 1))
            act = r.random()
            if act < 0.3 and at < len(data):
                data[at] ^= 1 << int(r.random() * 8)
            elif act < 0.5 and at < len(data):
                data[at] = r.choice(_BYTES)
            elif act < 0.65:
                data[at : at + 8] = r.choice(_WORDS)
            elif act < 0.75:
                del data[at:]
            elif act < 0.85:
                del data[at : at + 1 + int(r.random() * 9)]
            elif act < 0.95:
                other = r.choice(self._examples)
                begin = int(r.random() * (len(other) + 1))
                data[at:at] = other[begin : begin + 16]
            else:
                data += r.randbytes(int(r.random() * 64))
        return bytes(data)
