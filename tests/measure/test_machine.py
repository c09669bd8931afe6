"""The limits of this machine: probes that do what they count, figures that are remembered."""

from __future__ import annotations

import ctypes
import json
import mmap
from pathlib import Path

import pytest

from headrace.measure import machine as measured
from headrace.measure.probes import STEPS, accumulators, has_int8, probe_source
from headrace.targets.machine import Machine, typical
from headrace.targets.registry import Target, native_target
from headrace.targets.simd import ISAS
from headrace.targets.toolchain import Toolchain, find_toolchains

TOOLCHAINS = find_toolchains()


@pytest.fixture(scope="module")
def target() -> Target:
    return native_target()


@pytest.fixture(scope="module", params=TOOLCHAINS, ids=lambda t: t.kind)
def probes(request: pytest.FixtureRequest, target: Target) -> measured.Probes:
    if not request.param.builds_for(target.triple):
        pytest.skip("builds for another machine")
    return measured.Probes(target, request.param)


def test_every_multiply_add_is_made(probes: measured.Probes) -> None:
    """a = a / 2 + 1 ends at 2 in every lane of every accumulator."""
    call, count = probes.fma()
    assert call(10) == 2.0 * accumulators(probes.isa) * probes.isa.lanes
    assert count == STEPS * accumulators(probes.isa) * probes.isa.lanes


def test_every_byte_is_read(probes: measured.Probes) -> None:
    _, exact = probes.read(10_000)
    memory = (ctypes.c_float * (exact // 4))(*[1.0] * (exact // 4))
    read = probes.function("read", ctypes.c_void_p, ctypes.c_long)
    assert read(ctypes.addressof(memory), exact, 3) == 3 * exact // 4
    assert 0 < 10_000 - exact < 16 * 64


def test_every_dot_product_is_made(probes: measured.Probes) -> None:
    found = probes.int8()
    if not has_int8(probes.isa):
        assert found is None
        return
    assert found is not None
    assert found[0](1) == 16 * (sum(range(24)) + 24 * 4 * STEPS)
    assert found[1] == 24 * STEPS * 64


def test_every_step_waits_for_the_one_before(probes: measured.Probes) -> None:
    """x += n, STEPS times n times, from n."""
    assert probes.clock()(5) == 5 + 5 * STEPS * 5


def test_probes_of_every_instruction_set_have_all_parts() -> None:
    for isa in ISAS.values():
        text = probe_source(isa)
        assert all(f"hr_probe_{name}(" in text for name in ("clock", "fma", "read"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Small probes, remembered in a folder of their own."""
    monkeypatch.setattr(measured, "SIZES", (16, 256))
    monkeypatch.setattr(measured, "LARGEST", 1 << 20)
    monkeypatch.setattr(measured, "ROUNDS", 3)
    monkeypatch.setattr(measured, "SAMPLE_NS", 20_000)
    monkeypatch.setattr(measured, "cache_folder", lambda: tmp_path / "headrace")
    return tmp_path / "headrace"


def test_measured_once_and_remembered(quick: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain = TOOLCHAINS[0]
    first = measured.this_machine(target, toolchain)
    assert 0.2 < first.ghz < 10
    assert 0.5 < first.fma / (first.ghz * target.isa.lanes) < 8
    assert [size >> 10 for size, _ in first.read] == sorted(size >> 10 for size, _ in first.read)
    assert all(rate > 0.5 for _, rate in first.read)
    (path,) = quick.iterdir()
    text = path.read_text()

    def broken(*_: object) -> Machine:
        raise AssertionError("measured again")

    monkeypatch.setattr(measured, "measure", broken)
    assert measured.this_machine(target, toolchain) == first
    with pytest.raises(AssertionError):
        measured.this_machine(target, toolchain, remeasure=True)
    other = Toolchain(toolchain.kind, "0.0", toolchain.command, toolchain.machine)
    with pytest.raises(AssertionError):
        measured.this_machine(target, other)
    monkeypatch.setattr(measured, "measure", lambda *_: typical(target.isa))
    for damage in ("", "[]", text[:-3], json.dumps({**json.loads(text), "more": 1})):
        path.write_text(damage)
        assert measured.this_machine(target, toolchain) == typical(target.isa)
        assert json.loads(path.read_text())["name"].startswith("typical")


def test_without_a_place_to_remember_it(quick: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.parent.mkdir(exist_ok=True)
    quick.write_text("a file")
    monkeypatch.setattr(measured, "measure", lambda *_: typical(target.isa))
    assert measured.this_machine(target, TOOLCHAINS[0]) == typical(target.isa)


def test_sizes_of_caches(tmp_path: Path) -> None:
    parts = (("Data", 1, "48K"), ("Instruction", 1, "32K"), ("Unified", 2, "2048K"), ("Unified", 3, "30M"))
    for n, (kind, level, size) in enumerate(parts):
        folder = tmp_path / f"index{n}"
        folder.mkdir()
        for name, value in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / "index9").mkdir()
    assert measured.cache_sizes(tmp_path) == (("L1", 48 << 10), ("L2", 2 << 20), ("L3", 30 << 20))
    assert measured.cache_sizes(tmp_path / "nowhere") == ()


def test_memory_lies_on_pages_that_exist() -> None:
    memory = measured._pages(3 * mmap.PAGESIZE)
    assert memory[0] == memory[2 * mmap.PAGESIZE] == 1
