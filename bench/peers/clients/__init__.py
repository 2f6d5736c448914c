"""Programs that run under the peers' Python, so they import nothing of this repository but each other."""

from pathlib import Path


def litellm_hooks_file() -> Path:
    """The module that LiteLLM's proxy loads from beside its configuration."""
    return Path(__file__).with_name("litellm_hooks.py")
