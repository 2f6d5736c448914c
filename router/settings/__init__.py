"""Settings of a pod: definitions (`groups`), reading (`environment`), checks of combinations (`checks`)."""

from router.settings.effective import Row, effective, reference
from router.settings.environment import PREFIX, load, mounted_files, read, variable
from router.settings.groups import Settings

__all__ = ["PREFIX", "Row", "Settings", "effective", "load", "mounted_files", "read", "reference", "variable"]
