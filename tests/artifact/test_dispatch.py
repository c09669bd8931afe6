"""Artifacts with several instruction sets: what they say of themselves, streams, the entries in the library."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

import headrace as hr
from headrace.targets.registry import TARGETS, get_target
from tests.artifact import stepmodels

NAME = "x86-64-dispatch"
TARGET = get_target(NAME)
pytestmark = pytest.mark.skipif(bool(TARGET.missing_here()), reason=f"{NAME}: needs {TARGET.missing_here()}")


ALONE = [t for t in TARGETS.values() if not t.wider and t.isa in (TARGET.isa, *TARGET.wider)]


def test_what_it_says_of_itself() -> None:
    program = hr.compile(stepmodels.ALL["causal"]().step(), NAME)
    assert program.info.target == NAME
    assert program.info.manifest["target"]["isa"] == "x86-64, avx2, avx512, avx512vnni"
    assert program.info.manifest["facts"]["entries"] == ["x86-64", "avx2", "avx512", "avx512vnni"]
    held = program.info.manifest["facts"]["entries"]
    assert program.info.isa == [t.isa.name for t in ALONE if t.isa.name in held and not t.missing_here()][-1]
    (row,) = (t for t in hr.targets() if t.name == NAME)
    assert row.isa == "x86-64, avx2, avx512, avx512vnni, avx512bf16" and row.can_run


def test_pairs_get_an_entry_where_there_are_any() -> None:
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.BFLOAT16, shape) for n, shape in (("x", [3, 8]), ("y", [3, 4]))
    )
    weights = np.arange(-9, 23).reshape(8, 4).astype(ml_dtypes.bfloat16)
    constant = helper.make_tensor("w", TensorProto.BFLOAT16, weights.shape, weights.tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    program = hr.compile(model, NAME)
    assert program.info.manifest["facts"]["entries"][-1] == "avx512bf16"
    given = np.arange(24).reshape(3, 8).astype(ml_dtypes.bfloat16)
    wanted = (given.astype(np.float32) @ weights.astype(np.float32)).astype(ml_dtypes.bfloat16)
    assert (program.run({"x": given})["y"] == wanted).all()


@pytest.mark.parametrize(("kind", "threads"), [("same", 1), ("side", 3)])
def test_a_stream_gives_the_bits_of_its_instruction_set(kind: str, threads: int) -> None:
    offline = stepmodels.ALL[kind]()
    step = offline.step()
    program = hr.compile(step, NAME, threads=threads)
    alone = hr.compile(step, next(t for t in ALONE if t.isa.name == program.info.isa))
    assert alone.info.isa == program.info.isa
    signal, results = offline.signal(37), []
    for p in (program, alone):
        stream = p.stream(offline.given or None)
        first = stream.push({k: v[(slice(None),) * offline.axes[k] + (slice(0, 31),)] for k, v in signal.items()})
        state = stream.state()
        stream.reset()
        stream.restore(state)
        results.append((first, stream.flush()))
    for ours, theirs in zip(*results, strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert np.asarray(ours[name]).tobytes() == np.asarray(array).tobytes()
