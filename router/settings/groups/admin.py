"""Settings of admin acts: principal and tokens."""

import getpass
import os
from collections import deque
from typing import Literal

from pydantic import SecretStr, field_validator

from router.settings.groups.group import Group
from router.settings.tokens import named_tokens
from router.settings.types import setting


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return f"uid-{os.getuid()}"


class Admin(Group):
    """Admin acts"""

    principal: str = setting(
        _user,
        description="Actor in the audit for commands that change something.",
        default_text="(the operating system user)",
        pattern=r"^[^\x00-\x1f\x7f]{1,128}$",
    )
    admin_nats_read: Literal["token", "open"] = setting(
        "token", description="Whether the read-only admin subjects require a token."
    )
    admin_read_rate: int = setting(
        25,
        description="Administrative reads a second in each pod; further ones wait for up to two seconds, then get "
        "`service_overloaded`. Changes are not bounded.",
        ge=1,
        le=100_000,
    )
    admin_reads_at_once: int = setting(
        4, description="Administrative reads that run at a time in each pod.", ge=1, le=1_000
    )
    viewer_token: SecretStr | None = setting(
        None, description="Bearer token of role viewer, 32 characters or more.", min_length=16
    )
    operator_token: SecretStr | None = setting(
        None, description="Bearer token of role operator, 32 characters or more.", min_length=16
    )
    admin_token: SecretStr | None = setting(
        None, description="Bearer token of role admin, 32 characters or more.", min_length=16
    )
    admin_tokens: SecretStr | None = setting(
        None,
        description="Tokens of named principals, each of 32 characters or more: `principal:role:token`, one per line "
        "or comma-separated.",
    )

    @field_validator("admin_tokens")
    @classmethod
    def _entries(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            deque(named_tokens(value.get_secret_value()), maxlen=0)
        return value
