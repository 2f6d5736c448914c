"""What documents, docstrings and comments name exists, and the two entry documents keep their sentences short."""

import ast
import importlib
import io
import pkgutil
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import router
from router.telemetry import Event

ROOT = Path(__file__).parents[1]
MAX_WORDS = 40
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "bench" / "README.md", *ROOT.glob("examples/**/README.md")]
)
SOURCES = sorted(p for p in (ROOT / "router").rglob("*.py") if "pb" not in p.parts)
SCRIPTS = sorted((ROOT / "lua").rglob("*.lua"))
ENTRY_DOCUMENTS = ("README.md", "docs/ARCHITECTURE.md")

_BACKTICKS = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_DOTTED = re.compile(r"[a-z_]\w*(\.\w+)+(\(\))?")
_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.(py|lua|md|json|yaml|toml|proto|sh)")
PLACEHOLDERS = {"ready.json", ".local/ready.json", "lua/include/NAME.lua"}

_EVENTS = {event.value for event in Event}
_PACKAGES = {m.name for m in pkgutil.iter_modules(router.__path__)}


def _modules() -> dict[str, list[str]]:
    """Last part of a module's name → its full names."""
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts[-1] != "__main__":
            found.setdefault(parts[-1], []).append(".".join(parts))
    return found


MODULES = _modules()


def _attribute(owner: object, names: list[str]) -> bool:
    """Whether the attributes exist, one below the other; a struct's fields and annotations count."""
    for name in names:
        if not hasattr(owner, name):
            return any(name in getattr(c, "__annotations__", {}) for c in getattr(owner, "__mro__", ()))
        owner = getattr(owner, name)
    return True


def _exists(full: str) -> bool:
    """Whether a dotted name below `router` is a module, or an attribute of one."""
    parts = full.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module: ModuleType = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return _attribute(module, parts[length:])
    return False


def resolves(name: str) -> bool:
    """Whether a dotted name in backticks is right; names that mean nothing of this package are."""
    name = name.removesuffix("()")
    first, *rest = name.split(".")
    if name in _EVENTS or _FILE.fullmatch(name):
        return True
    if first == "router":
        return _exists(name)
    if first in _PACKAGES:
        # `store.away` may be a word of the wire: only what could be code is looked up.
        return _exists(f"router.{name}") or (len(rest) == 1 and rest[0].islower() and rest[0] not in MODULES)
    if rest[0][0].isupper() and first in MODULES:
        return any(_exists(f"{module}.{'.'.join(rest)}") for module in MODULES[first])
    return True


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring and comment of a module."""
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@cache
def _documents() -> list[tuple[str, str]]:
    return list(_read())


def _read() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in SOURCES:
        for line, text in texts_of(path):
            yield f"{path.relative_to(ROOT)}:{line}", text
    for path in SCRIPTS:
        for number, code in enumerate(path.read_text().splitlines(), 1):
            if "--" in code:
                yield f"{path.relative_to(ROOT)}:{number}", code[code.index("--") :]


def test_a_missing_name_is_noticed() -> None:
    """The check itself tells right names from wrong ones."""
    assert resolves("ports.tasks.TaskStore.move")
    assert resolves("bus.publishing.publisher")
    assert not resolves("ports.TaskStore")
    assert not resolves("usecases.finals.Finals")
    assert not resolves("final_results.Finals")


def test_names_in_backticks_resolve() -> None:
    """Every `module.Name` of documents, docstrings and comments is there."""
    wrong = [
        f"{where}: {name}"
        for where, text in _documents()
        for name in _BACKTICKS.findall(text)
        if _DOTTED.fullmatch(name) and not resolves(name)
    ]
    assert wrong == []


def test_named_files_exist() -> None:
    """Every file that documents, docstrings and comments name is there, from the root, `router/`, or beside them."""
    basenames = {p.name for p in ROOT.rglob("*") if ".venv" not in p.parts and ".local" not in p.parts}
    wrong = []
    for where, text in _documents():
        beside = (ROOT / where.split(":", maxsplit=1)[0]).parent
        named = [m[0] for m in _FILE.finditer(" ".join(_BACKTICKS.findall(text)))]
        named += [m.split("#")[0] for m in re.findall(r"\]\(([\w./#-]+)\)", text) if not m.startswith("#")]
        if where.startswith(("router/", "lua/")):
            named += [m[0] for m in _FILE.finditer(text) if "/" in m[0]]
        for name in named:
            places = (ROOT / name, ROOT / "router" / name, ROOT / "lua" / name, beside / name)
            if name in PLACEHOLDERS:
                continue
            if not any(p.exists() for p in places) and not ("/" not in name and name in basenames):
                wrong.append(f"{where}: {name}")
    assert wrong == []


def sentences(document: str) -> list[str]:
    """The sentences of a document's prose: without code blocks; a list item and a table's cell are prose."""
    prose = re.sub(r"(?ms)^```.*?^```$", "\n\n", document)
    prose = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", prose)
    blocks = re.split(r"\n\s*\n|\n\s*[-*] |\n\s*\d+\. |\n#+ |\n?\|", prose)
    return [s for block in blocks for s in re.split(r"(?<=[.!?])[\s*_)]+(?=[A-Z`(*])", block.replace("\n", " "))]


@pytest.mark.parametrize("document", ENTRY_DOCUMENTS)
def test_sentences_are_short(document: str) -> None:
    """No sentence of README and ARCHITECTURE has more than 40 words."""
    long = [s for s in sentences((ROOT / document).read_text()) if len(s.split()) > MAX_WORDS]
    assert long == []
