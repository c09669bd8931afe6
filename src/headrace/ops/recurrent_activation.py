"""Activation functions of the recurrent operators, by ONNX name, with their alpha and beta."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from headrace.ops.registry import Node
from headrace.program.expr import Expr, call, maximum, minimum, select

Activation = Callable[[Expr], Expr]
_Make = Callable[[float, float], Activation]

_REQUIRED = math.nan  # runtimes disagree about a default
# name: (default alpha, default beta; None: it takes none; function of both)
_KINDS: dict[str, tuple[float | None, float | None, _Make]] = {
    "relu": (None, None, lambda a, b: lambda x: maximum(x, 0.0)),
    "tanh": (None, None, lambda a, b: lambda x: call("tanh", x)),
    "sigmoid": (None, None, lambda a, b: lambda x: call("sigmoid", x)),
    "softsign": (None, None, lambda a, b: lambda x: x / (call("abs", x) + 1.0)),
    "softplus": (None, None, lambda a, b: lambda x: call("softplus", x)),
    "affine": (_REQUIRED, _REQUIRED, lambda a, b: lambda x: x * a + b),
    "leakyrelu": (0.01, None, lambda a, b: lambda x: select(x < 0.0, x * a, x)),
    "thresholdedrelu": (_REQUIRED, None, lambda a, b: lambda x: select(x > a, x, 0.0)),
    "scaledtanh": (_REQUIRED, _REQUIRED, lambda a, b: lambda x: call("tanh", x * b) * a),
    "hardsigmoid": (0.2, 0.5, lambda a, b: lambda x: maximum(minimum(x * a + b, 1.0), 0.0)),
    "elu": (1.0, None, lambda a, b: lambda x: select(x < 0.0, call("expm1", x) * a, x)),
}


def activations(node: Node, directions: Sequence[str], default: Sequence[str]) -> list[tuple[Activation, ...]]:
    """The functions of each direction.

    activation_alpha and activation_beta are handed out in order to those that take one; where a list
    is used up, the default holds.
    """
    names = [n.lower() for n in node.attr("activations") or [*default] * len(directions)]
    if len(names) != len(default) * len(directions):
        raise node.refuse(
            f"it has {len(names)} activations for {len(directions)} directions of {len(default)}",
            "correct the model",
        )
    alphas, betas = list(node.attr("activation_alpha") or []), list(node.attr("activation_beta") or [])
    found = []
    for name in names:
        if name not in _KINDS:
            raise node.refuse(f"its activation {name!r} is unknown", f"use one of {sorted(_KINDS)}")
        alpha, beta, make = _KINDS[name]
        alpha = alphas.pop(0) if alpha is not None and alphas else alpha
        beta = betas.pop(0) if beta is not None and betas else beta
        if any(v is not None and math.isnan(v) for v in (alpha, beta)):
            raise node.refuse(
                f"its activation {name!r} has no alpha or beta",
                "give activation_alpha and activation_beta for it",
            )
        found.append(make(alpha or 0.0, beta or 0.0))
    each = len(default)
    return [tuple(found[d * each : (d + 1) * each]) for d in range(len(directions))]
