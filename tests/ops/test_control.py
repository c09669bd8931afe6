"""If, Loop and Scan that are decided at run time, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from headrace.program.ir import Branch, Loop
from tests.ops.one_node import lowered, run_here, run_there, same

Array = np.ndarray[Any, Any]
X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def model_of(body: str, types: str) -> onnx.ModelProto:
    """A model in ONNX's text form: `types` is its signature."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> g {types} {{ {body} }}'
    return parser.parse_model(text)


def agree(model: onnx.ModelProto, **feeds: Array) -> None:
    for here, there in zip(run_here(model, feeds), run_there(model, feeds), strict=True):
        same(here, there)


@pytest.mark.parametrize("value", [True, False])
def test_if(value: bool) -> None:
    model = model_of(
        """
        a = Add (x, x)
        y, z = If (c) <
            then_branch = t () => (float[4, 3] p, float[4, 3] q) { p = Mul (a, x)  q = Identity (x) },
            else_branch = e () => (float[4, 3] p, float[4, 3] q) { p = Identity (x)  q = Neg (a) }
        >
        """,
        "(bool c, float[4, 3] x) => (float[4, 3] y, float[4, 3] z)",
    )
    assert any(isinstance(s, Branch) for s in lowered(model).body)
    agree(model, c=np.array(value), x=X)


COUNTED = """
    m = Constant <value = int64 {%d}> ()
    last, all = Loop (m, , x) <
        body = b (int64 i, bool c, float[4, 3] a) => (bool d, float[4, 3] n, float[4, 3] s) {
            d = Identity (c)  n = Mul (a, w)  s = Add (n, x)
        }
    >
"""


@pytest.mark.parametrize("passes", [1, 3])
def test_counted_loop_has_no_condition(passes: int) -> None:
    signature = f"(float[4, 3] x, float[3] w) => (float[4, 3] last, float[{passes}, 4, 3] all)"
    model = model_of(COUNTED % passes, signature)
    (loop,) = [s for s in lowered(model).body if isinstance(s, Loop)]
    assert loop.until is None and len(loop.carry) == 1
    agree(model, x=X, w=np.array([1, -2, 0.5], np.float32))


DYNAMIC = """
    last, n = Loop (m, k, x, zero) <
        body = b (int64 i, bool c, float[4, 3] a, int64 j) => (bool d, float[4, 3] s, int64 t) {
            one = Constant <value = int64 {1}> ()
            limit = Constant <value = float {20.0}> ()
            s = Add (a, a)
            t = Add (i, one)
            top = ReduceMax <keepdims = 0> (s)
            d = Less (top, limit)
        }
    >
"""
DYNAMIC_TYPES = "(int64 m, bool k, float[4, 3] x, int64 zero) => (float[4, 3] last, int64 n)"


@pytest.mark.parametrize("limit", [0, 2, 100])
@pytest.mark.parametrize("start", [True, False])
def test_loop_ends_by_count_or_condition(limit: int, start: bool) -> None:
    model = model_of(DYNAMIC, DYNAMIC_TYPES)
    agree(model, m=np.array(limit), k=np.array(start), x=X, zero=np.array(0))


def test_carried_values_may_swap() -> None:
    model = model_of(
        """
        m = Constant <value = int64 {3}> ()
        p, q = Loop (m, , x, z) <
            body = b (int64 i, bool c, float[4, 3] a, float[4, 3] e)
                => (bool d, float[4, 3] f, float[4, 3] g) {
                d = Identity (c)  f = Identity (e)  g = Identity (a)
            }
        >
        """,
        "(float[4, 3] x, float[4, 3] z) => (float[4, 3] p, float[4, 3] q)",
    )
    agree(model, x=X, z=-X)


@pytest.mark.parametrize("in_back", [0, 1])
@pytest.mark.parametrize("out_back", [0, 1])
@pytest.mark.parametrize("in_axis", [0, 1])
@pytest.mark.parametrize("out_axis", [0, -1])
def test_scan(in_back: int, out_back: int, in_axis: int, out_axis: int) -> None:
    size, steps = X.shape[1 - in_axis], X.shape[in_axis]
    shape = f"{steps}, {size}" if out_axis == 0 else f"{size}, {steps}"
    model = model_of(
        f"""
        final, all = Scan <
            num_scan_inputs = 1, scan_input_axes = [{in_axis}], scan_output_axes = [{out_axis}],
            scan_input_directions = [{in_back}], scan_output_directions = [{out_back}],
            body = b (float[{size}] s, float[{size}] v) => (float[{size}] n, float[{size}] o) {{
                n = Add (s, v)  o = Mul (n, v)
            }}
        > (h, x)
        """,
        f"(float[{size}] h, float[4, 3] x) => (float[{size}] final, float[{shape}] all)",
    )
    agree(model, h=np.arange(size, dtype=np.float32), x=X)


def test_scan_of_unused_outputs() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "v"], ["n"]), helper.make_node("Neg", ["n"], ["o"])],
        "b",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "sv"],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "no"],
    )
    node = helper.make_node("Scan", ["h", "x"], ["final", ""], num_scan_inputs=1, body=body)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3]),
        ],
        [helper.make_tensor_value_info("final", TensorProto.FLOAT, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (found,) = run_here(model, {"h": np.zeros(3, np.float32), "x": X})
    np.testing.assert_allclose(found, X.sum(0), rtol=1e-6)
