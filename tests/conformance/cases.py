"""The public ONNX node cases, each run through `headrace.onnx_backend`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from headrace import onnx_backend
from headrace.errors import UnsupportedOperator


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    kind: "pass", "refused" (typed UnsupportedOperator), "wrong" (other values than expected) or "crash".
    """

    kind: str
    detail: str = ""


@lru_cache(maxsize=1)
def node_cases() -> dict[str, Any]:
    """name → onnx TestCase, in the suite's order."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


REFUSED = Path(__file__).with_name("refused.txt")


@lru_cache(maxsize=1)
def refused_cases() -> frozenset[str]:
    """Names of the cases that are refused with a typed error."""
    return frozenset(REFUSED.read_text("utf-8").split())


def first_of_each_operator() -> frozenset[str]:
    """One case for every operator, and one for its expansion into a function body."""
    first: dict[tuple[str, bool], str] = {}
    for name, case in node_cases().items():
        operators = {node.op_type for node in case.model.graph.node}
        operator = next(iter(operators)) if len(operators) == 1 else name.split("_")[1]
        first.setdefault((operator, "_expanded" in name), name)
    return frozenset(first.values())


def _array(value: Any) -> Any:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def run_case(case: Any, engine: str = "interpreter") -> Outcome:
    """Run every data set of a case and compare as the suite does."""
    try:
        rep = onnx_backend.prepare(case.model, engine=engine)
        for inputs, expected in case.data_sets:
            outputs = rep.run([_array(x) for x in inputs])
            try:
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    Runner.assert_similar_outputs([_array(x) for x in expected], outputs, case.rtol, case.atol)
            except AssertionError as error:
                return Outcome("wrong", " ".join(str(error).split())[:300])
    except UnsupportedOperator as error:
        return Outcome("refused", str(error))
    except Exception as error:
        return Outcome("crash", f"{type(error).__name__}: {error}")
    return Outcome("pass")
