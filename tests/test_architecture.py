"""The order of modules that docs/architecture.md gives: no import goes up, and no two modules import each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rlcsd"


def floors() -> dict[str, int]:
    """Module or package → its line in the page's list, 0 at the top of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.split("A module imports only from lines above it:")[1].split("\n\n")[1]
    names = [re.split(r"\s{3,}", line.strip())[0].split() for line in block.splitlines()]
    return {name: floor for floor, line in enumerate(names) for name in line}


def imports(path: Path) -> set[str]:
    """Names below `rlcsd` that a file imports, at any depth of the file, by their first part."""
    package = path.relative_to(SOURCE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            parts = (*base, *(node.module.split(".") if node.module else ()))
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any((module or "").split(".")[0] == "rlcsd" for module in modules), f"{path}: import relatively"
    return found


def test_no_import_goes_up():
    floor = floors()
    files = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]
    assert len(files) > 50
    for path in files:
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        assert own in floor, f"{own} is missing from docs/architecture.md"
        for other in imports(path) - {own}:
            assert floor[other] < floor[own], f"{path.relative_to(SOURCE)} imports {other}, which is not below {own}"


def test_reports_know_run_folders_alone():
    for path in (SOURCE / "report").glob("*.py"):
        assert imports(path) <= {"report", "evaluation", "errors", "folders"}, path.name
