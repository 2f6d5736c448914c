"""Requests that wait for their tenant's policies: the pod does not have them, or may have old ones.

A request waits at most `wait_s` after its arrival. Then it is answered by the last good policies, or refused because
the store is unavailable. Requests of tenants that the pod does not know share one place, `admission.LOADING`.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from router.domain.decide.admission import LOADING, Admission, Shed
from router.domain.decide.answers import overloaded
from router.domain.decide.decision import Answer
from router.domain.policy.model import TenantPolicies
from router.errors import LoadsFull, StoreError
from router.ports.policies import Policies
from router.usecases.decide.intake import no_policy, store_unavailable
from router.usecases.decide.open_request import OpenRequest


class PolicyWait:
    """Holds requests until the load of their policies ends.

    `decide` continues with a request, `finish` answers it, `bug` answers it after an exception.
    """

    def __init__(
        self,
        policies: Policies,
        admission: Admission,
        wait_s: float,
        *,
        decide: Callable[[OpenRequest, TenantPolicies | None], None],
        finish: Callable[[OpenRequest, Answer], None],
        bug: Callable[[OpenRequest], None],
    ) -> None:
        self._policies = policies
        self._admission = admission
        self._wait_s = wait_s
        self._decide = decide
        self._finish = finish
        self._bug = bug
        self._loop = asyncio.get_running_loop()

    def begin(self, opened: OpenRequest, last_good: TenantPolicies | None) -> None:
        """Load the policies of the request's tenant, then decide it; refuse it if too many loads wait."""
        tenant_id = opened.request.tenant_id
        try:
            load = self._policies.begin_load(tenant_id)
        except LoadsFull:
            self._finish(opened, overloaded(Shed.LOADING, opened.request.request_id))
            return
        if last_good is None:
            self._hold_as(opened, LOADING)
        opened.since = opened.started
        late = self._loop.call_at(opened.started + self._wait_s, self._not_loaded, opened, last_good)
        load.add_done_callback(partial(self._loaded, opened, last_good, late))

    def _hold_as(self, opened: OpenRequest, holder: str) -> None:
        self._admission.move(opened.holder, holder)
        opened.holder = holder

    def _loaded(
        self,
        opened: OpenRequest,
        last_good: TenantPolicies | None,
        late: asyncio.TimerHandle,
        load: "asyncio.Future[TenantPolicies | None]",
    ) -> None:
        late.cancel()
        if opened.answered:
            return
        if last_good is None:
            self._hold_as(opened, opened.request.tenant_id)
        try:
            self._decide(opened, load.result())
        except StoreError:
            self._not_loaded(opened, last_good)
        except (Exception, asyncio.CancelledError):  # a load is cancelled only when the pod ends
            self._bug(opened)

    def _not_loaded(self, opened: OpenRequest, last_good: TenantPolicies | None) -> None:
        request = opened.request
        self._finish(opened, store_unavailable(request) if last_good is None else no_policy(request, last_good))
