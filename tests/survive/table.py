"""The survival table, for a terminal and as Markdown."""

from collections.abc import Sequence

from tests.survive.judge import SHORT_OF_CPU_S
from tests.survive.row import Outcome

_HEAD = (
    *("fault", "promise", "asked /s", "decided /s", "answers", "refused", "worst", "hung"),
    *("wrong", "lost", "doubled", "recovered", "held"),
)


def line(outcome: Outcome) -> str:
    """One row as it ends, for who watches."""
    name = f"{outcome.row.name:28}"
    if outcome.not_run:
        return f"{name} NOT RUN  {outcome.not_run}"
    refused = ", ".join(f"{code} {n}" for code, n in outcome.refused.items()) or "none"
    verdict = "held  " if outcome.held else "MISSED"
    text = (
        f"{name} {verdict} {outcome.seconds:4.0f} s  answers {outcome.answers}, refused {refused}, "
        f"worst {outcome.worst_s * 1000:.0f} ms, hung {outcome.hung}, wrong {outcome.wrong}, lost {outcome.lost}, "
        f"doubled {outcome.doubled}, recovered in {outcome.recover_s:.1f} s"
    )
    if outcome.late_s >= SHORT_OF_CPU_S:
        text += f"; the load's own timer was up to {outcome.late_s * 1000:.0f} ms late"
    if not outcome.was_calm:
        text += "; requests were refused before the fault, too: time is not judged"
    return "\n".join([text, *(f"    missed: {what}" for what in outcome.missed), *(f"    {t}" for t in outcome.told)])


def table(outcomes: Sequence[Outcome], operations: str = "OPERATIONS.md") -> str:
    """All rows, as Markdown; each links to what an operator sees and does."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    lines += ["| " + " | ".join(_cells(o, operations)) + " |" for o in outcomes]
    return "\n".join(lines)


def _cells(outcome: Outcome, operations: str) -> tuple[str, ...]:
    row = outcome.row
    first = (f"[{row.fault}]({operations}#{row.see})", row.promise)
    if outcome.not_run:
        return (*first, *[""] * (len(_HEAD) - 3), f"not run: {outcome.not_run}")
    refused = ", ".join(f"{code} {n}" for code, n in outcome.refused.items()) or "none"
    return (
        *first,
        f"{outcome.offered:.0f}",
        f"{outcome.decided:.0f}",
        str(outcome.answers),
        refused,
        f"{outcome.worst_s * 1000:.0f} ms",
        str(outcome.hung),
        str(outcome.wrong),
        str(outcome.lost),
        str(outcome.doubled),
        f"{outcome.recover_s:.1f} s",
        "yes" if outcome.held else "**no**",
    )
