"""profile() on small programs: every kernel timed in the C that was compiled, limits, reasons, traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import headrace as hr
from headrace import cli
from headrace.codegen.generated import KernelInfo
from headrace.codegen.marks import marked
from headrace.errors import Error, TargetError
from headrace.graph.model import Model
from headrace.measure import profile as profiling
from headrace.measure.gap import reasons
from headrace.targets.host import host_arch, host_features
from headrace.targets.machine import typical
from headrace.targets.registry import get_target
from headrace.targets.simd import ISAS


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Limits that take no time to measure; whether each call asked for new ones."""
    asked: list[bool] = []

    def this_machine(target: Any, toolchain: Any, remeasure: bool) -> Any:
        asked.append(remeasure)
        return typical(target.isa)

    monkeypatch.setattr(profiling, "this_machine", this_machine)
    return asked


@pytest.fixture(scope="module")
def network() -> hr.Program:
    """A product large enough to be timed, softmax, a small product."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((256, 256)) / 16, "v": rng.standard_normal((256, 8))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="large"),
        helper.make_node("Softmax", ["a"], ["b"], name="soft"),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="small"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [32, e]) for n, e in (("x", 256), ("y", 8)))
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    return hr.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def test_every_kernel_is_timed(network: hr.Program) -> None:
    report = hr.profile(network, seconds=0.2)
    assert [k.kernel for k in report.kernels] == list(network.info.kernels)
    total = sum(k.us for k in report.kernels)
    assert 0.5 * report.us < total + report.rest_us < 2 * report.us
    large = max(report.kernels, key=lambda k: k.us)
    assert "large" in large.kernel.nodes and large.kernel.macs == 32 * 256 * 256
    assert large.us > 0.5 * total
    assert large.limit_us == pytest.approx(large.kernel.operations / report.machine.fma / 1000)
    assert large.bound == "arithmetic"
    assert report.limit_us == sum(k.limit_us for k in report.kernels)
    assert report.calls >= 20 and 0 < report.mark_us < 1


def test_tables_and_json(network: hr.Program) -> None:
    report = hr.profile(network, seconds=0.05)
    table = report.table()
    assert "large" in table and "of its limit" in table and "GB/s" in table
    by_time, in_order = (
        [int(line[:4]) for line in report.table(sort).splitlines() if line[:4].strip().isdigit()]
        for sort in ("time", "order")
    )
    assert in_order == list(range(len(report.kernels))) and sorted(by_time) == in_order
    assert by_time[0] == max(range(len(report.kernels)), key=lambda n: report.kernels[n].us)
    with pytest.raises(ValueError, match="'time' or 'order'"):
        report.table("name")
    value = json.loads(report.to_json())
    assert [k["name"] for k in value["kernels"]] == [k.name for k in network.info.kernels]
    assert value["kernels"][0]["constant_bytes"] >= 4 * 256 * 256


def test_a_trace_holds_calls_and_their_kernels_in_order(network: hr.Program, tmp_path: Path) -> None:
    report = hr.profile(network, seconds=0.05)
    report.write_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X"}
    calls = [e for e in events if e.get("cat") == "call"]
    kernels = [e for e in events if e.get("cat") == "kernel"]
    assert len(kernels) == len(calls) * len(report.kernels) and calls
    end = 0.0
    for call in calls:
        assert call["ts"] >= end
        end = call["ts"]
        for kernel in kernels[: len(report.kernels)]:
            assert kernel["ts"] >= end - 1e-9 and kernel["dur"] >= 0
            end = kernel["ts"] + kernel["dur"]
        del kernels[: len(report.kernels)]
        assert end <= call["ts"] + call["dur"] + 1e-9
        end = call["ts"] + call["dur"]


def test_the_text_is_the_same_but_for_the_marks(network: hr.Program) -> None:
    name = network.info.manifest["name"]
    source = (network.path / f"{name}.c").read_text()
    text = marked(source, name, [k.name for k in network.info.kernels])
    assert text.count("    HR_MARK();\n") == len(network.info.kernels)
    assert source.rstrip("\n") in text
    start = source.index(f"int {name}_run(")
    function = source[start : source.index("\n}\n", start)]
    assert function.replace(f"{name}_run", f"static int {name}_marked")[4:] in text.replace("    HR_MARK();\n", "")


def test_c_of_another_version_is_refused(network: hr.Program) -> None:
    name = network.info.manifest["name"]
    source = (network.path / f"{name}.c").read_text()
    kernels = [k.name for k in network.info.kernels]
    for text, names in ((source, kernels[:-1]), (source, kernels[::-1]), ("int main(void) { return 0; }", kernels)):
        with pytest.raises(Error, match="compile the model again"):
            marked(text, name, names)


def test_states_go_on_and_results_stay(leaky_sum: Model) -> None:
    program = hr.compile(leaky_sum, state={"h": "h_next"})
    x = {"x": np.ones((1, 4), np.float32)}
    before = program.run(x)["y"]
    report = hr.profile(program, x, seconds=0.05)
    assert report.us >= 0, "a clock in steps of 10 ns may see nothing of a call so short"
    assert len(report.kernels) == len(program.info.kernels)
    np.testing.assert_array_equal(program.run(x)["y"], before)


def test_run_time_extents_take_their_bound(make: Callable[..., Model]) -> None:
    model = make([("Tanh", ["x"], ["y"], {})], {"x": ("float32", ("n", 4))}, {"y": ("float32", ("n", 4))})
    program = hr.compile(model, shapes={"x": ("n", 4)}, bounds={"n": 64})
    (kernel,) = hr.profile(program, seconds=0.05).kernels
    assert kernel.kernel.functions == 64 * 4
    assert hr.profile(program, {"x": np.ones((3, 4), np.float32)}, seconds=0.05).calls > 0


def test_kernels_in_parts(make: Callable[..., Model]) -> None:
    w = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    model = make(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": ("float32", (96, 256))}, {"y": ("float32", (96, 256))}, {"w": w}
    )
    program = hr.compile(model, threads=2)
    assert any("Parallel" in s for k in program.info.kernels for s in k.schedule)
    assert hr.profile(program, seconds=0.05).us > 0


def test_the_widest_of_several_instruction_sets(make: Callable[..., Model]) -> None:
    if host_arch() != "x86_64":
        pytest.skip("x86-64 only")
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model = make(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": ("float32", (4, 64))}, {"y": ("float32", (4, 64))}, {"w": w}
    )
    program = hr.compile(model, target="x86-64-dispatch")
    held = program.info.manifest["facts"]["entries"]
    widest = [isa for isa in get_target("x86-64-dispatch").wider if isa.name in held][-1]
    assert widest.name == "avx512vnni"  # without bf16 there is no entry for it
    if set(widest.features) <= {f.replace("_", "") for f in host_features()}:
        report = hr.profile(program, seconds=0.05)
        assert report.machine == typical(widest) and report.working_set < program.info.weight_bytes
    else:
        with pytest.raises(TargetError, match="other instructions"):
            hr.profile(program, seconds=0.05)


def test_a_step_model_far_from_its_ends(make: Callable[..., Model]) -> None:
    w = np.random.default_rng(0).standard_normal((4, 4, 3)).astype(np.float32)
    model = make(
        [("Conv", ["x", "w"], ["y"], {"pads": [1, 1]})],
        {"x": ("float32", (1, 4, "T"))}, {"y": ("float32", (1, 4, "T"))}, {"w": w},
    )  # fmt: skip
    program = hr.compile(hr.stream(model, {"x": 2}))
    steady = program.info.manifest["facts"]["steady"]
    report = hr.profile(program, seconds=0.05)
    assert report.us > 0 and [k.kernel.name for k in report.kernels] == [k["name"] for k in steady]


def test_evicted_calls_take_longer(network: hr.Program) -> None:
    report = hr.profile(network, seconds=0.1, evict=True)
    assert report.evict and "4 MB touched" in report.table()
    assert report.working_set > 4 << 20


def test_wrong_inputs(network: hr.Program) -> None:
    with pytest.raises(ValueError, match="x"):
        hr.profile(network, {"x": np.ones((1, 256), np.float32)}, seconds=0.05)
    with pytest.raises(ValueError, match="z"):
        hr.profile(network, {"z": np.ones((32, 256), np.float32)}, seconds=0.05)


def test_command(network: hr.Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], limits: list[bool]) -> None:
    folder, trace = str(network.path), tmp_path / "t.json"
    np.save(tmp_path / "x.npy", np.ones((32, 256), np.float32))
    arguments = ["--seconds", "0.05", "--trace", str(trace), "--input", f"x={tmp_path / 'x.npy'}", "--remeasure"]
    assert cli.main(["profile", folder, *arguments, "--sort", "order"]) == 0
    assert "of its limit" in capsys.readouterr().out
    assert json.loads(trace.read_text())["traceEvents"]
    assert limits == [True]
    assert cli.main(["profile", folder, "--seconds", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["share"] > 0
    assert cli.main(["profile", folder, "--sort", "name"]) == 2


# --- reasons -----------------------------------------------------------------------------------------


def test_reasons_name_what_costs_most() -> None:
    machine = replace(typical(ISAS["avx512"]), ghz=1.0)
    cycles = {"arithmetic": 1000.0, "lanes": 3000.0, "instructions": 1500.0, "loops": 1.0}
    kernel = KernelInfo("k", ("a",), 100, 200, 0, 0, functions=7, cycles=cycles)
    first, second = reasons(kernel, 5.5, 1.0, 0.5, machine)
    assert first == "vectors 25 % full (3 µs)"
    assert second == "7 values of exp, tanh or their like (1.5 µs)"
    assert reasons(kernel, 1.05, 1.0, 0.5, machine) == ()
    assert reasons(kernel, 50.0, 1.0, 0.5, machine)[-1] == "44 µs that the cost model does not explain"


def test_reading_that_is_in_the_limit_is_no_reason() -> None:
    machine = replace(typical(ISAS["avx512"]), ghz=1.0)
    kernel = KernelInfo("k", ("a",), 100, 200, 0, 0, cycles={"arithmetic": 1000.0, "caches": 2000.0})
    assert reasons(kernel, 3.5, 1.0, 3.0, machine) == ("0.5 µs that the cost model does not explain",)
    (reason,) = reasons(kernel, 3.0, 1.0, 1.0, machine)
    assert reason.startswith("reading from outer caches")
