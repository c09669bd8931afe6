"""Artifacts built once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.artifact.build import Source, build
from headrace.artifact.program import Program, open_program
from headrace.codegen.generated import Generated
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain
from tests.artifact import handmade

Build = Callable[..., Path]


def build_here(generated: Generated, out: Path | None, toolchain: str | None = None, **options: object) -> Path:
    """build() for this machine with a made-up source."""
    target = get_target("native")
    compiler = find_toolchain(toolchain, target.triple)
    return build(generated, target, compiler, out, source=Source("demo", "0" * 64), options=options)


@pytest.fixture
def build_native() -> Build:
    return build_here


@pytest.fixture(scope="session")
def demo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of handmade.running_sum; not to be changed."""
    return build_here(handmade.running_sum(), tmp_path_factory.mktemp("artifacts") / "demo")


@pytest.fixture
def demo(demo_path: Path) -> Program:
    return open_program(demo_path)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """handmade.doubled_rows: T up to 6, a multiple of 2."""
    return open_program(build_here(handmade.doubled_rows(), tmp_path_factory.mktemp("artifacts") / "rows"))
