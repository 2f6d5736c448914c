"""The table of a campaign, as Markdown: one column a run."""

from collections.abc import Sequence

from tests.chaos.campaign import Run


def title(run: Run) -> str:
    """What was run."""
    return f"seed {run.seed}, {run.faults} faults, appendfsync {run.fsync}"


def table(runs: Sequence[Run]) -> str:
    """All bars of all runs, then what is told without a bar, and the faults by kind."""
    rows = [("", *(f"appendfsync {r.fsync}" for r in runs))]
    rows += [(bar.name, *(_cell(r, bar.name) for r in runs)) for bar in runs[0].bars]
    rows += [(name, *(r.facts.get(name, "") for r in runs)) for name in runs[0].facts]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    kinds = ", ".join(f"{kind} {n}" for kind, n in runs[0].kinds.items())
    missed = [f"{b.name}: {', '.join(b.examples)}" for r in runs for b in r.bars if not b.held and b.examples]
    return "\n".join([title(runs[0]), "", *lines, "", f"faults: {kinds}", *missed])


def _cell(run: Run, name: str) -> str:
    bar = next(b for b in run.bars if b.name == name)
    if bar.held:
        return str(bar.found)
    return f"**{bar.found}, not {bar.wanted}**"
