"""Mutation testing: `python -m tests.mutation.mutate --count 500 --seed 7`.

The mutation operators are mutmut's. Its runner is not used: it wants to own pytest's process and knows nothing of
pods in child processes; the runner of `tests.mutation.swaps` judges both kinds of mutants. Equivalent mutants are
listed in `equivalent.toml` with the reason.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from libcst import Module
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.configuration import config
from mutmut.mutation.file_mutation import Mutation, create_mutations

from tests.mutation.command import Kind, run
from tests.mutation.mutant import Candidate, Outline

GENERATED = "router/wire/pb/"
LIST = Path(__file__).with_name("equivalent.toml")
NOTICED = Path(__file__).with_name("mutants.noticed")


def find(root: Path) -> list[Candidate]:
    """Every mutant in the folders that pyproject.toml names for mutmut."""
    found: list[Candidate] = []
    for folder in config().source_paths:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if not name.startswith(GENERATED):
                found += mutants_of(name, path.read_text(encoding="utf-8"))
    return found


def mutants_of(path: str, source: str) -> Iterator[Candidate]:
    """The mutants of one file: mutmut's operators, and as in mutmut only in functions."""
    module, mutations, _, _ = create_mutations(path, source)
    positions = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    outline = Outline(source)
    for mutation in mutations:
        if mutation.contained_by_top_level_function is not None:
            before, after = (
                " ".join(module.code_for_node(node).split()) for node in (mutation.original_node, mutation.mutated_node)
            )
            where = outline.function(positions[mutation.original_node].start.line)
            change = partial(_changed, module, mutation)
            yield Candidate(path, where, f"{before} → {after}", change)


def _changed(module: Module, mutation: Mutation) -> str:
    changed = module.deep_replace(mutation.original_node, mutation.mutated_node)
    assert isinstance(changed, Module)
    return changed.code


def main() -> int:
    """Judge a sample of the mutants."""
    return run("mutate", __doc__, Kind(find, LIST, NOTICED, count=500))


if __name__ == "__main__":
    sys.exit(main())
