"""What people read about time: layer lines, the guide's table."""

from __future__ import annotations

from pathlib import Path

from headrace.frontends.onnx import load
from headrace.streaming.explain import explain, operator_table
from tests.streaming.networks import build, same_stack, unet

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "streaming.md"


def test_lines_of_layers() -> None:
    lines = [" ".join(line.split()) for line in str(explain(load(build(same_stack)), {"x": 2})).splitlines()]
    assert lines[2] == "conv_2 Conv [axis 2, delay 3, rate 1] keeps past 4 frames"
    assert lines[-1] == "chunk of 1 frames"


def test_a_refusal_comes_after_the_layers_before_it() -> None:
    report = explain(load(build(unet)), {"x": 2})
    assert report.blocked is not None and report.blocked.node == "add_7"
    assert report.layers[-1].op == "ConvTranspose"
    report = explain(load(build(unet)), {"x": 2}, multiple={"x": 4})
    assert report.blocked is None and report.chunk == 4


def test_the_guide_has_the_table_of_the_rules() -> None:
    """When it fails: put the result of operator_table() between the markers."""
    text = GUIDE.read_text(encoding="utf-8")
    inside = text.split("<!-- operators -->\n")[1].split("<!-- end -->")[0]
    assert inside.strip() == operator_table()
