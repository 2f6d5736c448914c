"""The base of all groups of settings."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Base of a group of settings; a group's docstring is the heading of its table in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, allow_inf_nan=False)
