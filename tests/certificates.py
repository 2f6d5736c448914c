"""Certificates for tests, made with openssl: an authority of one's own, and what it signs."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.servers import missing


class Certificate(NamedTuple):
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def context(self, ca: Path | None = None) -> ssl.SSLContext:
        """For a server; with `ca` it demands certificates of its clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
        context.load_cert_chain(self.cert, self.key)
        if ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """A certificate authority in a folder; `ca` is its own certificate."""

    def __init__(self, folder: Path) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            missing("openssl", "install it with the system's packages")
        self._openssl = str(openssl)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self._key = folder / "ca.pem", folder / "ca.key"
        self._run("req", "-x509", *self._new(self._key), "-out", str(self.ca), "-subj", "/CN=tests", "-days", "2")

    def issue(self, name: str, *alternatives: str) -> Certificate:
        """A certificate for these names, such as `IP:127.0.0.1` and `DNS:localhost`."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        names = ",".join(alternatives or ("IP:127.0.0.1", "DNS:localhost"))
        signed = ("-CA", str(self.ca), "-CAkey", str(self._key), "-addext", f"subjectAltName={names}")
        ends = ("-addext", "basicConstraints=critical,CA:FALSE", "-days", "2")
        out = ("-out", str(made.cert), "-subj", f"/CN={name}")
        self._run("req", "-x509", *self._new(made.key), *out, *signed, *ends)
        return made

    def issue_between(self, name: str, start: str, end: str) -> Certificate:
        """A certificate for 127.0.0.1 that is valid between two moments, as `20200101000000Z`."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, config = self._folder / f"{name}.csr", self._folder / "ca.cnf"
        (self._folder / "index.txt").write_text("")
        config.write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self._folder / 'index.txt'}\nnew_certs_dir={self._folder}\n"
            "rand_serial=yes\ndefault_md=sha256\npolicy=p\nx509_extensions=x\n"
            "[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:127.0.0.1\n"
        )
        self._run("req", *self._new(made.key), "-out", str(request), "-subj", f"/CN={name}")
        signed = ("-cert", str(self.ca), "-keyfile", str(self._key), "-startdate", start, "-enddate", end)
        out = ("-in", str(request), "-out", str(made.cert), "-notext")
        self._run("ca", "-batch", "-config", str(config), *signed, *out)
        return made

    def _new(self, key: Path) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key))

    def _run(self, *words: str) -> None:
        subprocess.run([self._openssl, *words], check=True, capture_output=True)
