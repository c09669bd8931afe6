"""Bodies of the vector primitives in AArch64 Advanced SIMD intrinsics, where they beat the portable ones."""

from __future__ import annotations

from headrace.targets import vector_bytes
from headrace.targets.vector_types import VType

_UNARY = {"sqrt": "vsqrt", "round": "vrndn", "floor": "vrndm", "ceil": "vrndp", "trunc": "vrnd"}


def body(op: str, t: VType, s: VType | None) -> str | None:
    """C statements of hr_<op>_<t>[_<s>]; None: use the portable body."""
    if op in ("cvt", "near") and s is not None:
        return vector_bytes.neon(op, t, s) or (_convert(t, s) if op == "cvt" else None)
    if t.elem.kind != "f":
        return None
    if t.lanes == 1:
        return _scalar(op, t)
    if t.bytes not in (8, 16):
        return None
    q, x, r = _names(t)
    if op in _UNARY:
        return f"return ($T){_UNARY[op]}{q}_{x}(({r})a);"
    if op in ("min", "max"):
        return f"return ($T)v{op}{q}_{x}(({r})a, ({r})b);"
    if op in ("fma", "fnma"):
        return f"return ($T){'vfma' if op == 'fma' else 'vfms'}{q}_{x}(({r})c, ({r})a, ({r})b);"
    return None


def _names(t: VType) -> tuple[str, str, str]:
    return "q" if t.bytes == 16 else "", t.elem.name, f"float{t.elem.bits}x{t.lanes}_t"


def _scalar(op: str, t: VType) -> str | None:
    x = t.elem.name
    if op in _UNARY:
        return f"return vget_lane_{x}({_UNARY[op]}_{x}(vdup_n_{x}(a)), 0);"
    if op in ("fma", "fnma"):
        return f"return __builtin_fma{'f' if x == 'f32' else ''}({'-' if op == 'fnma' else ''}a, b, c);"
    return None


def _convert(t: VType, s: VType) -> str | None:
    """f16 and f32, four lanes."""
    if {t.elem.name, s.elem.name} != {"f16", "f32"} or t.lanes != 4:
        return None
    if t.elem.kind == "h":
        return "return ($T)vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)a));"
    return "return ($T)vcvt_f32_f16(vreinterpret_f16_u16((uint16x4_t)a));"
