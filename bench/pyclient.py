"""The load generator for a machine without a C compiler: same arguments, same output, several times the CPU.

It speaks the raw protocol over one connection, and is likely to be the limit above some 20,000 requests/s.
"""

import asyncio
import os
import re
import struct
import sys
import time
from pathlib import Path

import msgspec

_MESSAGE = re.compile(rb"H?MSG (\S+) \d+ (?:(\S+) )??(?:(\d+) )?(\d+)\r\n")
_CODE = re.compile(rb'"code":"([^"]*)"')
_DRAIN_S = 3.0


class Client(asyncio.Protocol):
    """One connection; correlation by the last token of the reply subject, which is the request's number."""

    def __init__(self, subject: str, templates: Path, id_base: int, expect: bytes) -> None:
        self._head = f"PUB {subject} _INBOX.{os.getpid()}.".encode()
        self._templates = list(read_templates(templates))
        self._id_base = id_base
        self._expect = expect
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.due: dict[int, float] = {}
        self.sent = self.answered = self.ok = self.replayed = self.duplicates = 0
        self.window = (0.0, 0.0)
        self.samples: list[float] = []
        self.errors: dict[str, int] = {}
        self.open_loop = False
        self.sending = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello and listen to the inbox."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        hello = f'CONNECT {{"verbose":false,"headers":true,"no_responders":true}}\r\nSUB _INBOX.{os.getpid()}.* 1\r\n'
        transport.write(hello.encode())

    def data_received(self, data: bytes) -> None:
        """Replies, and the server's pings."""
        data = self._rest + data
        now, at = time.perf_counter(), 0
        while (end := data.find(b"\r\n", at)) >= 0:
            m = _MESSAGE.match(data, at)
            if m is None:
                if data.startswith(b"PING", at):
                    self._write(b"PONG\r\n")
                at = end + 2
                continue
            body = m.end()
            if len(data) < body + int(m[4]) + 2:
                break
            number = int(m[1].rpartition(b".")[2])
            self._on_reply(number, now, data[body + int(m[3] or 0) : body + int(m[4])])
            at = body + int(m[4]) + 2
        self._rest = data[at:]

    def _on_reply(self, number: int, now: float, body: bytes) -> None:
        due = self.due.pop(number, None)
        if due is None:
            self.duplicates += 1
            return
        opens, closes = self.window
        self.answered += opens <= now < closes
        if opens <= (due if self.open_loop else now) < closes:
            self.samples.append(now - due)
            self._judge(body)
        if not self.open_loop and self.sending:
            self.send([now])

    def _judge(self, body: bytes) -> None:
        if self._expect in body:
            self.ok += 1
            self.replayed += b'"replayed":true' in body
            return
        code = _CODE.search(body)
        name = code[1].decode() if code else "no_responders" if not body else "not_a_reply"
        self.errors[name] = self.errors.get(name, 0) + 1

    def send(self, due: list[float]) -> None:
        """One request for each due time, in one write."""
        out = []
        for moment in due:
            before, after = self._templates[self.sent % len(self._templates)]
            size = len(before) + 16 + len(after)
            out.append(
                b"%b%d %d\r\n%b%016x%b\r\n" % (self._head, self.sent, size, before, self._id_base + self.sent, after)
            )
            self.due[self.sent] = moment
            self.sent += 1
        self._write(b"".join(out))

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


def read_templates(path: Path) -> list[tuple[bytes, bytes]]:
    """Each template as what stands before and after the 16 digits of its id."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size, hole = struct.unpack_from("<II", data, at)
        payload = data[at + 8 : at + 8 + size]
        found.append((payload[:hole], payload[hole + 16 :]))
        at += 8 + size
    return found


async def run(client: Client, amount: int, warmup_s: float, measure_s: float) -> dict[str, object]:
    """Load through warm-up and window, then wait a little for stragglers."""
    start = time.perf_counter()
    opens = start + warmup_s
    closes = opens + measure_s
    client.window = (opens, closes)
    if not client.open_loop:
        client.send([start] * amount)
    late = cpu = 0.0
    for until, sign in ((opens, "START"), (closes, "END")):
        while (now := time.perf_counter()) < until:
            if client.open_loop:
                due = [start + n / amount for n in range(client.sent, int((now - start) * amount) + 1)]
                late = max(late, now - due[0]) if due else late
                client.send(due)
            await asyncio.sleep(min(0.001, until - now))
        cpu = time.process_time() - cpu
        print(sign, flush=True)
    client.sending = False
    while client.due and time.perf_counter() < closes + _DRAIN_S:  # noqa: ASYNC110 (the reading side must stay lean)
        await asyncio.sleep(0.005)
    return report(client, measure_s, cpu, late)


def report(client: Client, window_s: float, cpu_s: float, late_s: float) -> dict[str, object]:
    """The same fields as loadgen.c prints."""
    samples = sorted(client.samples) or [0.0]
    points = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    latency = {name: samples[min(len(samples) - 1, int(q * len(samples)))] * 1e6 for name, q in points.items()}
    return {
        "answered": client.answered,
        "window_s": window_s,
        "rate": client.answered / window_s,
        "sent": client.sent,
        "ok": client.ok,
        "replayed": client.replayed,
        "duplicates": client.duplicates,
        "lost": len(client.due),
        "generator_cpu_s": cpu_s,
        "late_max_us": late_s * 1e6,
        "errors": client.errors,
        "latency_us": {"mean": sum(samples) / len(samples) * 1e6} | latency,
    }


async def main(argv: list[str]) -> None:
    """Arguments as in loadgen.c; `echo` is not offered."""
    host, port, mode, subject, templates, _connections, amount, warmup_ms, measure_ms, id_base, expect = argv
    client = Client(subject, Path(templates), int(id_base, 16), expect.encode())
    client.open_loop = mode == "open"
    await asyncio.get_running_loop().create_connection(lambda: client, host, int(port))
    result = await run(client, int(amount), int(warmup_ms) / 1000, int(measure_ms) / 1000)
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
