from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headrace.artifact.harness import SanitizerError, run_sanitized
from headrace.codegen.generated import Generated
from headrace.errors import ToolchainError
from headrace.targets.registry import get_target
from headrace.targets.toolchain import Toolchain, find_toolchain, find_toolchains
from tests.artifact import handmade
from tests.artifact.handmade import WEIGHTS

X = np.arange(8, dtype=np.float32).reshape(1, 8)


@pytest.fixture
def compiler() -> Toolchain:
    if not {"gcc", "clang"} & {t.kind for t in find_toolchains()}:
        pytest.skip("needs gcc or clang")
    return find_toolchain(None, get_target("native").triple)


def edited(generated: Generated, old: str, new: str) -> Generated:
    assert old in generated.source
    return replace(generated, source=generated.source.replace(old, new))


def test_sound_code_passes_and_gives_the_outputs(compiler: Toolchain) -> None:
    first, second = run_sanitized(handmade.running_sum(), compiler, [{"x:0": X}, {"x:0": X}])
    np.testing.assert_array_equal(first["y:0"], X * WEIGHTS)
    np.testing.assert_array_equal(second["y:0"], 2 * X * WEIGHTS)


def test_extents_are_passed(compiler: Toolchain) -> None:
    x = np.ones((4, 3), np.float32)
    (result,) = run_sanitized(handmade.doubled_rows(), compiler, [{"x": x}])
    np.testing.assert_array_equal(result["y"], 2 * x)
    assert result["n"] == 12


@pytest.mark.parametrize(
    ("old", "new", "report"),
    [
        ("i < 8; i++) sum[i]", "i < 9; i++) sum[i]", "heap-buffer-overflow"),
        ("i < 8; i++) t[i]", "i < 9; i++) t[i]", "heap-buffer-overflow"),
        ("i < 8; i++) out->y[i]", "i < 9; i++) out->y[i]", "heap-buffer-overflow"),
        ("sum[i] += in->x[i]", "sum[i] += in->x[i - 1]", "heap-buffer-overflow"),
        ("sum[i] += in->x[i]", "sum[i] += (float)((int)in->x[i] << 31)", "left shift"),
    ],
    ids=["state", "scratch", "output", "input", "undefined"],
)
def test_unsound_code_is_caught(old: str, new: str, report: str, compiler: Toolchain) -> None:
    with pytest.raises(SanitizerError, match=report):
        run_sanitized(edited(handmade.running_sum(), old, new), compiler, [{"x:0": X}], timeout_s=60)


def test_an_error_code_is_told(compiler: Toolchain) -> None:
    with pytest.raises(SanitizerError, match="error code 7"):
        run_sanitized(handmade.running_sum(), compiler, [{"x:0": np.full((1, 8), 2e30, np.float32)}])


def test_zig_is_refused() -> None:
    zig = Toolchain("zig", "0", ("zig", "cc"), "x86_64-linux-gnu")
    with pytest.raises(ToolchainError, match="no AddressSanitizer"):
        run_sanitized(handmade.running_sum(), zig, [{"x:0": X}])
