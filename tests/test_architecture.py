"""The structure that docs/architecture.md describes, read from the imports: order, no circles, unique names, one border."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rlcsd"


def module_name(path: Path) -> str:
    """Dotted name below `rlcsd`; a package has the name of its folder."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"}


def imports(name: str) -> set[str]:
    """Modules below `rlcsd` that a module imports, at any depth of its code, and the packages around them.

    Imports for type checkers alone are left out.
    """
    path = MODULES[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in for_types:
            base = package[: len(package) - (node.level - 1)] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in MODULES else ".".join(base))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any((module or "").split(".")[0] == "rlcsd" for module in modules), f"{path}: import relatively"
    found = (found & MODULES.keys()) - {name}
    return found | {package for other in found for package in packages_of(other) - packages_of(name) - {name}}


def packages_of(name: str) -> set[str]:
    """The packages around a module, whose `__init__` runs before it is imported."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))} & MODULES.keys()


GRAPH = {name: imports(name) for name in MODULES}


def floors() -> dict[str, int]:
    """Module or package → its line in the page's list, 0 at the top of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.split("A module imports only from lines above it")[1].split("\n\n")[1]
    names = [re.split(r"\s{3,}", line.strip())[0].split() for line in block.splitlines()]
    return {name: floor for floor, line in enumerate(names) for name in line}


def test_no_import_goes_up():
    floor = floors()
    assert len(GRAPH) > 90
    for name, found in GRAPH.items():
        own = name.split(".")[0]
        assert own in floor, f"{own} is missing from docs/architecture.md"
        for other in found:
            part = other.split(".")[0]
            assert part == own or floor[part] < floor[own], f"{name} imports {other}, which is not below it"


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_no_two_modules_share_a_base_name():
    names = Counter(path.stem for path in MODULES.values() if not path.stem.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_core_knows_the_experiments_by_one_string_alone():
    for name, found in GRAPH.items():
        if not name.startswith("experiments"):
            assert not any(other.startswith("experiments") for other in found), name
    naming = [
        name
        for name, path in MODULES.items()
        if not name.startswith("experiments") and "rlcsd.experiments" in path.read_text(encoding="utf-8")
    ]
    assert naming == ["plugins"]


def test_reports_know_run_folders_alone():
    for name, found in GRAPH.items():
        if name.startswith("report"):
            allowed = {"report", "evaluation", "config", "errors", "storage"}
            assert {other.split(".")[0] for other in found} <= allowed, name
