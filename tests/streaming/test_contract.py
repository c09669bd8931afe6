"""The contract as a check of users' models: it holds for right ones, and breaks for wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import headrace as hr
from headrace.codegen.stream_plan import Lane
from headrace.measure.contract_report import BROKEN, HOLDS, UNTESTED, ContractReport
from headrace.measure.perturb import Reach
from tests.artifact import stepmodels
from tests.artifact.stepmodels import ALL, model_of, weights
from tests.streaming.networks import attention, build


def states(report: ContractReport) -> dict[str, str]:
    return {clause.name: clause.state for clause in report.clauses}


def verified(step: Any, offline: Any, **options: Any) -> ContractReport:
    report = hr.verify(step, model=offline, cuttings=2, **options)
    assert isinstance(report, ContractReport)
    return report


@pytest.mark.parametrize("name", ALL)
def test_holds(name: str) -> None:
    offline = ALL[name]()
    report = verified(offline.step(), offline.proto)
    assert report.ok, report.table()
    assert not report.notes
    untested = {name for name, state in states(report).items() if state == UNTESTED}
    assert untested <= {"nothing beyond the end", "rows of a batch"}
    assert json.loads(report.to_json())["ok"] is True


def test_rows_of_a_batch() -> None:
    offline = stepmodels.same()
    dims = offline.proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].ClearField("dim_value")
    dims[0].dim_param = "N"
    proto = onnx.ModelProto()
    proto.CopyFrom(offline.proto)
    del proto.graph.value_info[:]
    proto.graph.output[0].type.tensor_type.shape.dim[0].ClearField("dim_value")
    report = verified(hr.stream(proto, {"x": 2}), proto)
    assert report.ok and states(report)["rows of a batch"] == HOLDS, report.table()


def test_a_stated_maximum() -> None:
    """Signals up to it are tried, and one frame more is refused."""
    proto = build(lambda b: attention(b, "trilu"))
    report = verified(hr.stream(proto, {"x": 2}, max_past=20), proto)
    assert report.ok and report.lengths[-1] == 20, report.table()
    assert next(c for c in report.clauses if c.name == "flush and reset").detail.endswith("full after 20 frames")


def test_the_progress_is_told() -> None:
    offline, told = stepmodels.causal(), []
    report = verified(offline.step(), offline.proto, lengths=[4], progress=told.append)
    assert told == [clause.name for clause in report.clauses]


def test_of_a_program_and_of_an_artifact(tmp_path: Path) -> None:
    offline = stepmodels.strided()
    onnx.save(offline.proto, tmp_path / "m.onnx")
    hr.compile(hr.stream(tmp_path / "m.onnx", {"x": 2}), out=tmp_path / "p")
    report = verified(hr.open(tmp_path / "p"), None)
    assert report.ok and set(states(report).values()) <= {HOLDS, UNTESTED}


def changed(step: hr.StepModel, **facts: Any) -> onnx.ModelProto:
    """A step model that lies about time."""
    proto = step.proto
    (entry,) = [p for p in proto.metadata_props if p.key == "headrace.stream"]
    entry.value = json.dumps({**json.loads(entry.value), **facts})
    return proto


def output(step: hr.StepModel, **facts: Any) -> dict[str, Any]:
    data = json.loads(step.metadata["headrace.stream"])
    return {"y": {**data["outputs"]["y"], **facts}}


@pytest.mark.parametrize(
    ("facts", "clause"),
    [
        ({"delay": 2, "ready": [-2]}, "any cutting"),
        ({"lookahead": 2}, "receptive field"),
        ({"receptive_field": 6}, "receptive field"),
        ({"ready": [-1]}, "frames come when ready"),
    ],
)
def test_wrong_facts_are_found(facts: dict[str, Any], clause: str) -> None:
    offline = stepmodels.same()
    step = offline.step()
    report = verified(changed(step, outputs=output(step, **facts)), offline.proto)
    assert not report.ok and states(report)[clause] == BROKEN, report.table()


def test_a_wrong_step_is_found() -> None:
    """Frames beyond the end enter a convolution, and the state starts with another value."""
    offline = stepmodels.same()
    step = offline.step()
    proto = step.proto
    for node in proto.graph.node:
        if node.op_type == "Where":
            node.op_type = "Identity"
            kept = node.input[1]
            del node.input[:]
            node.input.append(kept)
    report = verified(proto, offline.proto)
    assert states(report)["nothing beyond the end"] == BROKEN, report.table()
    proto = step.proto
    for tensor in proto.graph.initializer:
        if tensor.name in {v.name for v in proto.graph.input}:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 1, tensor.name))
    report = verified(proto, offline.proto)
    assert states(report)["any cutting"] == BROKEN and "error" in report.table()


def test_another_model_is_found() -> None:
    offline = stepmodels.causal()
    other = model_of(
        [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[2, 0])],
        {"x": [1, 2, "T"]}, ["y"], weights(9, w=(3, 2, 3), b=(3,)),
    )  # fmt: skip
    assert states(verified(offline.step(), other))["any cutting"] == BROKEN


def test_integers_bit_for_bit() -> None:
    node = onnx.helper.make_node("CumSum", ["x", "axis"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "sums",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT32, ["T", 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ["T", 2])],
        [onnx.numpy_helper.from_array(np.array(0), "axis")],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    report = verified(hr.stream(proto, {"x": 0}), proto)
    assert report.ok
    assert next(c for c in report.clauses if c.name == "any cutting").detail.endswith("bit for bit")


def test_without_the_offline_model_the_step_is_compared() -> None:
    """There is nothing to try the contract against; the program is compared with the step model."""
    report = hr.verify(stepmodels.same().step())
    assert not isinstance(report, ContractReport) and report.ok


def test_reach_of_a_transposed_convolution() -> None:
    """Kernel 4, stride 2, padding 1: four output frames change with one input frame, each depends on two."""
    lane = Lane("y", 2, (2, 1), 2)
    reach = Reach(lane, 1)
    for frame in (79, 80, 81, 82):
        reach.add(frame, 40, 40)
    assert (reach.field, reach.ahead) == (2, 1)
    assert reach.fault({"lookahead": 1, "receptive_field": 2}) == ""
    assert "depend on 2 input frames" in reach.fault({"lookahead": 1, "receptive_field": 1})
    assert "1 input frames before" in reach.fault({"lookahead": 0, "receptive_field": None})
