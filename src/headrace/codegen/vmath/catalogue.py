"""Which source belongs to which function, and what its users may rely on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headrace.codegen.vmath import error_function, exponential, logarithm, power, trigonometric
from headrace.codegen.vmath.coefficients import TWO_OVER_PI_DIGITS
from headrace.targets.vector_types import VType

Body = str | Callable[[VType, bool, bool], str]  # (type, whether Isa.fma, whether doubles need two registers)


@dataclass(frozen=True)
class Function:
    """A math function hr_<name>_<type> for f32, f64 and their vectors.

    max_ulp: largest error measured over the domain, rounded up, in units in the last place of the result, by
    element type; see docs/reference/vmath.md. source: body template. internal: a part of others, not for
    callers. cold: never inlined, because long and rarely reached.
    """

    name: str
    doc: str
    domain: str
    max_ulp: Mapping[str, float]
    source: Body = field(repr=False)
    params: str = "T x"
    returns: str = "T"
    internal: bool = False
    cold: bool = False

    @property
    def arity(self) -> int:
        return self.params.count(",") + 1


def _by_precision(f32: str, f64: str) -> Body:
    return lambda t, fma, wide: f32 if t.elem.name == "f32" else f64


def _through_double(scalar: str, wide_text: str, f64: str, plain: str | None = None) -> Body:
    """f32 vectors whose doubles need two registers go by halves, or without fma by `plain`."""

    def body(t: VType, fma: bool, wide: bool) -> str:
        if t.elem.name == "f64":
            return f64
        if t.lanes == 1 or not wide:
            return scalar
        return plain if plain and not fma else wide_text

    return body


def _by_lanes(scalar: str, vector: str) -> Body:
    return lambda t, fma, wide: scalar if t.lanes == 1 else vector


def _cbrt(t: VType, fma: bool, wide: bool) -> str:
    step = "c = y * y * y;\ny = y * ((c + a + a) / (c + c + a));"
    return power.CBRT.replace("CBRT_STEPS", step if t.elem.name == "f32" else f"{step}\n{step}")


_ANY = "all x"
_PARTS = (
    Function("exp_sum", "e**(hi + lo), lo small", "hi ≤ 0", {}, exponential.EXP_SUM, "T hi, T lo", internal=True),
    Function(
        "log_tail",
        "log(1 + f) - f",
        "√½ - 1 ≤ f ≤ √2 - 1",
        {},
        _by_precision(logarithm.LOG_TAIL_F32, logarithm.LOG_TAIL_F64),
        "T f",
        internal=True,
    ),
    Function("erfc_positive", "erfc(t)", "t ≥ 0", {}, error_function.ERFC_POSITIVE, "T t", internal=True),
    Function(
        "trig_rest",
        "x - n π/2",
        "|x| < 2**17",
        {},
        _through_double(
            trigonometric.REST_F32,
            trigonometric.REST_F32_WIDE,
            trigonometric.REST_F64,
            trigonometric.REST_F32_PLAIN,
        ),
        "T x, T n",
        internal=True,
    ),
    Function(
        "trig_huge",
        "remainder r and quadrant q of the lanes with |x| ≥ 2**17",
        _ANY,
        {},
        _by_lanes(trigonometric.HUGE_SCALAR, trigonometric.HUGE_VECTOR),
        "const T *x, T *r, U *q",
        "void",
        internal=True,
        cold=True,
    ),
    Function(
        "trig_reduce_huge",
        "x - q π/2 for a double",
        "|x| ≥ 2**17",
        {},
        trigonometric.REDUCE_HUGE.replace("{DIGITS}", "{\n    " + "\n    ".join(TWO_OVER_PI_DIGITS) + "\n}"),
        "double x, int *quadrant",
        "double",
        internal=True,
        cold=True,
    ),
    Function(
        "mul_rest",
        "a * b - p, exact, for p = a * b rounded",
        "no overflow",
        {},
        lambda t, fma, wide: power.MUL_REST_FMA if fma else power.MUL_REST,
        "T a, T b, T p",
        internal=True,
    ),
    Function(
        "pow_positive",
        "|x|**y",
        _ANY,
        {},
        _through_double(power.POW_POSITIVE_F32, power.POW_POSITIVE_F32_WIDE, power.POW_POSITIVE_F64),
        "T x, T y",
        internal=True,
    ),
)

_PUBLIC = (
    Function("exp", "e**x", _ANY, {"f32": 1.1, "f64": 1.1}, exponential.EXP),
    Function("exp2", "2**x", _ANY, {"f32": 1.1, "f64": 1.1}, exponential.EXP2),
    Function("expm1", "e**x - 1", _ANY, {"f32": 1.6, "f64": 2.1}, exponential.EXPM1),
    Function("log", "natural logarithm; NaN below 0, -inf at 0", _ANY, {"f32": 1, "f64": 1}, logarithm.LOG),
    Function("log2", "logarithm to base 2", _ANY, {"f32": 2, "f64": 2}, logarithm.LOG2),
    Function("log10", "logarithm to base 10", _ANY, {"f32": 2, "f64": 2}, logarithm.LOG10),
    Function("log1p", "log(1 + x)", _ANY, {"f32": 1, "f64": 1}, logarithm.LOG1P),
    Function("tanh", "hyperbolic tangent", _ANY, {"f32": 2.6, "f64": 2.8}, exponential.TANH),
    Function(
        "sigmoid",
        "1 / (1 + e**-x), also exact for very negative x",
        _ANY,
        {"f32": 2.6, "f64": 2.6},
        exponential.SIGMOID,
    ),
    Function("sinh", "hyperbolic sine", _ANY, {"f32": 2.8, "f64": 3}, exponential.SINH),
    Function("cosh", "hyperbolic cosine", _ANY, {"f32": 1.6, "f64": 1.6}, exponential.COSH),
    Function("asinh", "inverse of sinh", _ANY, {"f32": 2, "f64": 2}, logarithm.ASINH),
    Function("acosh", "inverse of cosh; NaN below 1", _ANY, {"f32": 2.6, "f64": 2.6}, logarithm.ACOSH),
    Function("atanh", "inverse of tanh; NaN outside [-1, 1]", _ANY, {"f32": 2.2, "f64": 2.2}, logarithm.ATANH),
    Function("softplus", "log(1 + e**x)", _ANY, {"f32": 1.8, "f64": 1.8}, exponential.SOFTPLUS),
    Function("mish", "x tanh(softplus(x))", _ANY, {"f32": 4.6, "f64": 4.8}, exponential.MISH),
    Function(
        "erf",
        "error function",
        _ANY,
        {"f32": 1.5, "f64": 1.5},
        _by_precision(error_function.ERF_SINGLE, error_function.ERF),
    ),
    Function("erfc", "1 - erf(x) without cancellation", _ANY, {"f32": 6.5, "f64": 6.5}, error_function.ERFC),
    Function(
        "gelu",
        "x Φ(x), Φ the normal distribution function, without cancellation",
        _ANY,
        {"f32": 6.7, "f64": 7},
        error_function.GELU,
    ),
    Function("sin", "sine, also of huge x", _ANY, {"f32": 1.7, "f64": 2.6}, trigonometric.SIN),
    Function("cos", "cosine, also of huge x", _ANY, {"f32": 1.7, "f64": 2.6}, trigonometric.COS),
    Function("tan", "tangent, also of huge x", _ANY, {"f32": 4, "f64": 4.2}, trigonometric.TAN),
    Function("asin", "inverse sine; NaN outside [-1, 1]", _ANY, {"f32": 2.5, "f64": 2.5}, trigonometric.ASIN),
    Function("acos", "inverse cosine; NaN outside [-1, 1]", _ANY, {"f32": 1.3, "f64": 1.3}, trigonometric.ACOS),
    Function("atan", "inverse tangent", _ANY, {"f32": 2.4, "f64": 2.5}, trigonometric.ATAN),
    Function(
        "pow",
        "x**y; NaN for negative x and fractional y",
        "all x, y",
        {"f32": 0.51, "f64": 1.4},
        power.POW,
        "T x, T y",
    ),
    Function("cbrt", "cube root", _ANY, {"f32": 1.1, "f64": 1.1}, _cbrt),
    Function("rsqrt", "1 / sqrt(x)", _ANY, {"f32": 1.5, "f64": 1.5}, power.RSQRT),
    Function(
        "fmod",
        "remainder of x / y with the sign of x, exact",
        "all x, y",
        {"f32": 0, "f64": 0},
        _by_lanes(power.FMOD_SCALAR, power.FMOD_VECTOR),
        "T x, T y",
    ),
    Function(
        "mod",
        "remainder of x / y with the sign of y",
        "all x, y",
        {"f32": 0.5, "f64": 0.5},
        power.MOD,
        "T x, T y",
    ),
)

FUNCTIONS: dict[str, Function] = {f.name: f for f in _PUBLIC}
PARTS: dict[str, Function] = {f.name: f for f in _PARTS}
