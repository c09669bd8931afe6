"""Imports go one way, and the core stays free of optional packages. Part of `make lint`.

    cli, studio → verbs → artifact, measure → codegen → schedule → program
    streaming, compress → passes → ops → program, graph        frontends → graph

A verb is any module of the package that has no line in MAY_IMPORT.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "headrace"

LEAVES = {"errors", "spec"}  # every part may import these
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "spec": set(),
    "program": set(),
    "targets": {"program"},
    "schedule": {"program", "targets"},
    "codegen": {"program", "schedule", "targets"},
    "graph": set(),
    "frontends": {"graph"},
    "ops": {"graph", "program"},
    "passes": {"graph", "ops"},
    "streaming": {"graph", "ops", "passes"},
    "compress": {"graph", "ops", "passes"},
    "artifact": {"graph", "program", "targets", "schedule", "codegen", "streaming"},
    "measure": {"graph", "ops", "passes", "program", "targets", "schedule", "codegen", "artifact", "streaming"},
    "nn": set(),
}
TOP = ("cli", "studio", "__main__")  # nothing but themselves imports these
WITHOUT_ONNX = ("program", "schedule", "codegen", "targets")
MAY_USE_TORCH = ("nn", "frontends/torch.py", "compress")
CORE_PACKAGES = {
    "headrace",
    "numpy",
    "onnx",
    "onnx_ir",
    "ml_dtypes",
    "rich",
    "google",
}  # google.protobuf, by onnx


@dataclass(frozen=True)
class Import:
    """One imported module. file: relative to the package; lazy: in a function or for type checking only."""

    file: str
    line: int
    module: str
    lazy: bool

    @property
    def component(self) -> str:
        """First part of the importing file's path."""
        return Path(self.file).parts[0].removesuffix(".py")

    @property
    def target(self) -> str:
        """The part of the package that is imported; empty for other packages."""
        parts = self.module.split(".")
        return (parts[1] if len(parts) > 1 else "__init__") if parts[0] == "headrace" else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports(file: str, text: str) -> Iterator[Import]:
    """Every import of a file; relative ones made absolute, `from headrace import x` taken as headrace.x."""
    package = ["headrace", *Path(file).parts[:-1]]

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, name.name, lazy) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            whole = [f"{module}.{name.name}" for name in node.names] if module == "headrace" else [module]
            yield from (Import(file, node.lineno, name, lazy) for name in whole)
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy or inside)

    yield from walk(ast.parse(text), lazy=False)


def fault(found: Import) -> str | None:
    """Why this import is not allowed, or None."""
    top_level = found.module.split(".")[0]
    if top_level in ("tests", "zoo", "benchmarks", "examples"):
        return "the package must work without the repository"
    if top_level in ("onnx", "onnx_ir") and found.component in WITHOUT_ONNX:
        return f"{found.component} knows loops and buffers, not ONNX"
    if top_level == "torch" and not found.file.startswith(MAY_USE_TORCH):
        return "torch belongs to nn, compress and frontends/torch.py"
    if top_level not in CORE_PACKAGES | sys.stdlib_module_names and not found.lazy and found.component != "nn":
        return f"{top_level} is optional: import it in the function that needs it"
    if found.target in TOP and found.component not in TOP:
        return f"{found.target} is on top: nothing imports it"
    allowed = MAY_IMPORT.get(found.component)
    if found.target and allowed is not None and found.target not in allowed | LEAVES | {found.component}:
        return f"{found.component} may import {', '.join(sorted(allowed | LEAVES))}, not {found.target}"
    return None


def test_imports_go_one_way() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert files
    found = [i for f in files for i in imports(f.relative_to(SOURCE).as_posix(), f.read_text(encoding="utf-8"))]
    faults = [f"{i}: {why}" for i in found if (why := fault(i))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("program/ir.py", "import headrace.codegen.c", "not codegen"),
        ("program/ir.py", "from ..codegen import c", "not codegen"),
        ("program/ir.py", "from headrace import schedule", "not schedule"),
        ("schedule/steps.py", "def f():\n    import onnx", "not ONNX"),
        ("codegen/c.py", "from onnx_ir import Model", "not ONNX"),
        ("ops/conv.py", "if TYPE_CHECKING:\n    from headrace.passes import fold", "not passes"),
        ("graph/load.py", "import torch", "torch belongs"),
        ("verify.py", "import onnxruntime", "optional"),
        ("artifact/load.py", "import headrace", "not __init__"),
        ("verify.py", "from headrace.cli import main", "on top"),
        ("measure/bench.py", "import zoo.catalog", "without the repository"),
    ],
)
def test_wrong_imports_are_found(file: str, text: str, reason: str) -> None:
    (found,) = imports(file, text)
    assert reason in (fault(found) or "")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("program/ir.py", "from .expr import Expr"),
        ("ops/conv.py", "from headrace.program import build"),
        ("verify.py", "from headrace.artifact import load"),
        ("verify.py", "def f():\n    import onnxruntime"),
        ("frontends/torch.py", "def f():\n    import torch"),
        ("cli.py", "import headrace"),
        ("codegen/c.py", "import ctypes, numpy"),
    ],
)
def test_right_imports_pass(file: str, text: str) -> None:
    assert [fault(found) for found in imports(file, text)] == [None] * text.count(",") + [None]
