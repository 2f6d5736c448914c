"""The images of a run: those that the files pin by digest, or stand-ins that the engine has under their plain tags."""

import os
import re
import shutil
import subprocess
from pathlib import Path

_TAGS = {"PYTHON_IMAGE": "python:3.13-slim", "REDIS_IMAGE": "redis:7", "NATS_IMAGE": "nats:2"}
_PINNED = re.compile(r"^ARG PYTHON_IMAGE=(\S+)$", re.MULTILINE)
_DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def has_image(name: str) -> bool:
    """Whether there is an engine that has it already."""
    if shutil.which("docker") is None:
        return False
    command = ["docker", "image", "inspect", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def stand_ins() -> dict[str, str]:
    """Variables of docker-compose.yml: what the environment names, else a tag that the engine already has."""
    return {name: os.environ.get(name, tag) for name, tag in _TAGS.items() if name in os.environ or has_image(tag)}


def base_image() -> str:
    """What the image is built on."""
    pinned = _PINNED.search(_DOCKERFILE.read_text())
    assert pinned is not None
    return stand_ins().get("PYTHON_IMAGE", pinned[1])


def build_arguments() -> str:
    """For `docker build`."""
    return f"--build-arg PYTHON_IMAGE={base_image()}"
