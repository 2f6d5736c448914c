"""All settings by group: name, type, default, bounds, description. `router config` and docs/REFERENCE.md print them."""

from router.settings.groups.admin import Admin
from router.settings.groups.api import Api
from router.settings.groups.group import Group
from router.settings.groups.observe import Observe
from router.settings.groups.pod import Pod
from router.settings.groups.policies import Gate, Policies
from router.settings.groups.requests import Dispatch, Intake
from router.settings.groups.servers import Nats, Redis
from router.settings.groups.store import Store
from router.settings.groups.streams import Streams

GROUPS: tuple[type[Group], ...] = (
    Pod,
    Api,
    Nats,
    Redis,
    Store,
    Policies,
    Gate,
    Intake,
    Dispatch,
    Streams,
    Admin,
    Observe,
)


class Settings(Pod, Api, Nats, Redis, Store, Policies, Gate, Intake, Dispatch, Streams, Admin, Observe):
    """All settings of one pod; read-only."""

    @property
    def decide_wait_effective_ms(self) -> int:
        """Longest time that a decide request waits for Redis: the setting, else 4 × the deadline of a call, in ms."""
        return self.decide_wait_ms or 4 * self.store_deadline_ms

    @property
    def assign_max_age_s(self) -> int:
        """Maximum age of stream ASSIGN: the setting, else max(1 h, 2 × the longest deadline), in seconds."""
        return self.stream_assign_max_age_s or max(3_600, 2 * -(-self.deadline_max_ms // 1_000))
