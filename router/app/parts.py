"""All parts of a pod, built in the order in which they need each other."""

from router.app.api import ApiParts
from router.app.audit import AuditParts
from router.app.deciding import DecideParts
from router.app.platform import Platform
from router.app.policies import PolicyParts
from router.app.services import Services
from router.app.tasks import TaskParts
from router.settings import Settings


class Parts:
    """The parts. Nothing is connected or runs before the pod starts it."""

    def __init__(self, settings: Settings) -> None:
        self.platform = Platform(settings)
        self.audit = AuditParts(self.platform)
        self.policies = PolicyParts(self.platform, self.audit)
        self.tasks = TaskParts(self.platform, self.policies)
        self.deciding = DecideParts(self.platform, self.audit, self.policies, self.tasks)
        self.services = Services(self.platform, self.policies, self.tasks, self.deciding)
        self.api = ApiParts(self.platform, self.deciding, self.services.get_decision)
