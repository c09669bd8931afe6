"""The public ONNX node cases: each passes or is refused with a type, as the list beside this file says.

`python -m tests.conformance.score --update` rewrites the list.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.cases import first_of_each_operator, node_cases, refused_cases, run_case

KNOWN_GAPS = {
    "test_attention_4d_causal_fp16": "one float16 unit off, more than the tolerance",
    "test_attention_4d_causal_fp16_expanded": "one float16 unit off, as above",
    "test_dft_inverse": "expected zeros hold 2e-7 of noise, more than the tolerance; ours 3e-15",
    "test_dft_inverse_opset19": "noise in the expected zeros, as above",
}


def _parameters() -> list[Any]:
    quick = first_of_each_operator()
    out = []
    for name in node_cases():
        marks: list[Any] = [] if name in quick or name in KNOWN_GAPS else [pytest.mark.slow]
        if name in KNOWN_GAPS:
            marks.append(pytest.mark.xfail(strict=True, reason=KNOWN_GAPS[name]))
        out.append(pytest.param(name, marks=marks))
    return out


@pytest.mark.parametrize("name", _parameters())
def test_case(name: str) -> None:
    outcome = run_case(node_cases()[name])
    wanted = "refused" if name in refused_cases() else "pass"
    assert outcome.kind == wanted, outcome.detail


def test_the_list_of_refusals_names_cases() -> None:
    assert refused_cases() <= node_cases().keys()


def test_the_promised_number_of_cases_pass() -> None:
    assert len(node_cases()) - len(refused_cases()) - len(KNOWN_GAPS) >= 1500


NATIVE = sorted(n for n in first_of_each_operator() - refused_cases() - KNOWN_GAPS.keys() if "_expanded" not in n)


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
def test_compiled_case(name: str) -> None:
    """The first case of each operator, as native code."""
    outcome = run_case(node_cases()[name], "native")
    assert outcome.kind == "pass", outcome.detail
