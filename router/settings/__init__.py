"""The settings of a pod: what they are (`groups`), how they are read (`environment`), what contradicts (`checks`)."""

from router.settings.effective import Row, effective, reference
from router.settings.environment import PREFIX, load, variable
from router.settings.groups import Settings

__all__ = ["PREFIX", "Row", "Settings", "effective", "load", "reference", "variable"]
