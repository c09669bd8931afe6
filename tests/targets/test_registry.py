from __future__ import annotations

import subprocess
import sys

import pytest

import headrace as hr
from headrace.errors import TargetError
from headrace.targets import host, registry
from headrace.targets.registry import TARGETS, Target, get_target, native_target, targets

AVX512 = frozenset("avx2 fma f16c avx512f avx512bw avx512dq avx512vl".split())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> object:
    def set_machine(arch: str, features: frozenset[str]) -> None:
        monkeypatch.setattr(registry, "host_arch", lambda: arch)
        monkeypatch.setattr(registry, "host_features", lambda: features)
        monkeypatch.setattr(registry, "host_triple", lambda: f"{arch}-linux-gnu")

    return set_machine


@pytest.mark.parametrize(
    ("arch", "features", "name"),
    [
        ("x86_64", AVX512, "x86-64-avx512"),
        ("x86_64", AVX512 - {"avx512vl"}, "x86-64-avx2"),
        ("x86_64", frozenset({"avx2"}), "x86-64"),
        ("x86_64", frozenset(), "x86-64"),
        ("aarch64", frozenset({"asimd"}), "aarch64"),
        ("riscv64", frozenset(), "generic"),
    ],
)
def test_native_is_the_widest_that_runs(arch: str, features: frozenset[str], name: str, machine: object) -> None:
    machine(arch, features)  # type: ignore[operator]
    assert native_target().name == name
    assert get_target("native").missing_here() == ""


@pytest.mark.parametrize("allowed", [True, False])
def test_tiles_are_taken_where_the_system_allows_them(
    allowed: bool, machine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = "avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16"  # as Linux writes them
    machine("x86_64", AVX512 | set(more.split()))  # type: ignore[operator]
    monkeypatch.setattr(registry, "tiles_allowed", lambda: allowed)
    assert native_target().name == "x86-64-avx512-fp16"  # tiles have to be asked for
    rows = {row.name: row for row in targets()}
    assert rows["x86-64-avx512-amx"].can_run == allowed
    assert ("allows tile registers" in rows["x86-64-avx512-amx"].missing) != allowed


def test_targets_say_what_is_missing(machine: object) -> None:
    machine("x86_64", AVX512 - {"avx512bw"})  # type: ignore[operator]
    rows = {row.name: row for row in targets()}
    assert set(rows) == {"native", *TARGETS}
    assert rows["native"].isa == "avx2 (x86-64-avx2)"
    assert "a processor with avx512bw" in rows["x86-64-avx512"].missing and not rows["x86-64-avx512"].can_run
    assert "a machine with aarch64" in rows["aarch64"].missing
    assert rows["x86-64-avx2"].can_run


def test_without_compiler_nothing_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_toolchains", lambda: ())
    assert all(not row.can_build and "pip install ziglang" in row.missing for row in targets())


def test_unknown_targets() -> None:
    with pytest.raises(TargetError, match=r"unknown target 'x86-64-avx'; did you mean x86-64-avx2"):
        get_target("x86-64-avx")
    with pytest.raises(TargetError, match="unknown target 'qqq'; known: native, x86-64,"):
        get_target("qqq")
    with pytest.raises(TypeError, match="not int"):
        get_target(3)  # type: ignore[arg-type]
    custom = Target("mine", TARGETS["generic"].isa, "")
    assert get_target(custom) is custom


def test_cpuinfo() -> None:
    text = "processor : 0\nflags\t\t: fpu avx2 fma\n\nprocessor : 1\nflags : fpu avx2\n"
    assert host.features_from_cpuinfo(text) == {"fpu", "avx2"}
    assert host.features_from_cpuinfo("Features : fp asimd\n") == {"fp", "asimd"}
    assert host.features_from_cpuinfo("") == frozenset()


def test_the_package_of_targets_is_also_the_verb() -> None:
    import headrace.targets.simd

    assert headrace.targets.simd.ISAS
    assert hr.targets() == targets()
    code = "import headrace as hr; hr.compile; import headrace.targets.host\nassert hr.targets()[0].name == 'native'"
    subprocess.run([sys.executable, "-c", code], check=True)
