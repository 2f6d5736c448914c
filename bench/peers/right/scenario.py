"""One scenario for every contender: two instances share a limit and a budget while one of them dies and Redis freezes.

Half of the requests belong to a tenant with a limit of requests, half to a tenant with a budget, so that neither bound
hides what the other one lets through. The first half arrives at once. When a tenth of all is answered, Redis freezes
for a second, the second half arrives at once, and instance 0 is killed with its requests under way. A caller that gets
no answer asks again, at the other instance. Every admitted request is reported twice, by contenders that take reports.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

COST_CENTS = 2
"""What every request of the budget costs, and is expected to cost."""
FREEZE_S, KILL_AFTER_S = 1.0, 0.3
_PATIENCE_S, _AGAIN_S, _BEFORE_S = 90.0, 0.2, 20.0


class Size(Struct, frozen=True):
    """How many requests; a tenth of them fits into the limit, and twice as many cents are the budget's tenth."""

    requests: int = 1_000

    @property
    def limit(self) -> int:
        """Requests that the limited tenant may have: 100 of 1,000."""
        return self.requests // 10

    @property
    def budget_cents(self) -> int:
        """What the tenant with the budget may spend: 1 USD of 1,000 requests."""
        return self.requests // 10


class Bound(StrEnum):
    """What bounds a request's tenant; also the tenant's name."""

    LIMIT = "limited"
    BUDGET = "budgeted"


class Ask(Struct, frozen=True):
    """One request."""

    bound: Bound
    number: int

    @property
    def name(self) -> str:
        """Its id."""
        return f"{self.bound}-{self.number:05d}"


class NotAnswered(Exception):
    """No answer, or one that says: ask again."""


class Contender(Protocol):
    """Two running instances that share one Redis. `bills`: whether it says what each request cost in the end."""

    bills: bool

    async def ask(self, ask: Ask, instance: int) -> str | None:
        """A token of the admission, or None for a refusal.

        :raises NotAnswered: there was no answer, or a fault.
        """
        ...

    async def report(self, ask: Ask, token: str) -> None:
        """Report the result of an admitted request."""
        ...

    async def billed(self, admitted: set[str]) -> Counter[str]:
        """How often each request was billed. Returns when `admitted` were, or when no bill is to be expected."""
        ...

    def freeze(self) -> None:
        """Freeze Redis."""
        ...

    def thaw(self) -> None:
        """Let Redis go on."""
        ...

    def kill(self) -> None:
        """Kill instance 0."""
        ...


class Verdict(Struct, frozen=True):
    """What came out; `billed_twice` and `not_billed` are None for who does not bill."""

    admitted: int
    admitted_above: int
    spent_cents: int
    spent_above_cents: int
    unanswered: int
    billed_twice: int | None = None
    not_billed: int | None = None

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (self.admitted_above, self.spent_above_cents, self.unanswered, self.billed_twice, self.not_billed)
        return not any(wrong)


class Scenario:
    """Runs once."""

    def __init__(self, contender: Contender, size: Size) -> None:
        self._contender = contender
        self._size = size
        self._admitted: set[str] = set()
        self._answered = self._unanswered = 0
        self._enough = asyncio.Event()

    async def run(self) -> Verdict:
        """The scenario, and what came out."""
        asks = [Ask(bound, n) for n in range(self._size.requests // 2) for bound in Bound]
        half = len(asks) // 2
        contender = self._contender
        async with asyncio.TaskGroup() as callers:
            for ask in asks[:half]:
                callers.create_task(self._call(ask))
            # A contender that answers slowly meets the fault with fewer answers given.
            await _within(self._enough.wait(), _BEFORE_S)
            contender.freeze()
            try:
                for ask in asks[half:]:
                    callers.create_task(self._call(ask))
                await asyncio.sleep(KILL_AFTER_S)
                contender.kill()
                await asyncio.sleep(FREEZE_S - KILL_AFTER_S)
            finally:
                contender.thaw()
        bills = await contender.billed(self._admitted) if contender.bills else None
        return judge(self._admitted, bills, self._size, self._unanswered)

    async def _call(self, ask: Ask) -> None:
        instance, loop = ask.number % 2, asyncio.get_running_loop()
        give_up = loop.time() + _PATIENCE_S
        while True:
            try:
                token = await self._contender.ask(ask, instance)
                break
            except NotAnswered:
                if loop.time() > give_up:
                    self._unanswered += 1
                    return
                instance = 1 - instance
                await asyncio.sleep(_AGAIN_S)
        self._answered += 1
        if self._answered >= self._size.requests // 10:
            self._enough.set()
        if token is not None:
            self._admitted.add(ask.name)
            await asyncio.gather(*(self._contender.report(ask, token) for _ in range(2)))


async def _within(wait: object, seconds: float) -> None:
    assert asyncio.iscoroutine(wait)
    try:
        await asyncio.wait_for(wait, seconds)
    except TimeoutError:
        return


def judge(admitted: set[str], bills: Counter[str] | None, size: Size, unanswered: int) -> Verdict:
    """What the answers and the bills say. A billed call was admitted, whether or not its caller has the answer.
    Who bills has spent what it billed, else what it admitted.
    """
    limited, budgeted = (_of(bound, admitted | set(bills or ())) for bound in Bound)
    spent = sum(bills[name] for name in _of(Bound.BUDGET, bills)) if bills is not None else len(budgeted)
    return Verdict(
        admitted=len(limited),
        admitted_above=max(0, len(limited) - size.limit),
        spent_cents=spent * COST_CENTS,
        spent_above_cents=max(0, spent * COST_CENTS - size.budget_cents),
        unanswered=unanswered,
        billed_twice=None if bills is None else sum(count - 1 for count in bills.values() if count > 1),
        not_billed=None if bills is None else len(admitted - bills.keys()),
    )


def _of(bound: Bound, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{bound}-")]
