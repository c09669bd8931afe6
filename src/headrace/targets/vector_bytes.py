"""Rounding to bounded integers, and conversions between i32 and integers of 8 and 16 bits, by intrinsics.

Compilers take vectors of a few bytes apart into scalars; here they lie in the low part of a register.
"""

from __future__ import annotations

from headrace.targets.vector_types import VType

_PREFIX = {16: "_mm", 32: "_mm256", 64: "_mm512"}
_FIRST = {8: "0, 4, 8, 12", 16: "0, 1, 4, 5, 8, 9, 12, 13"}  # low bytes of four elements of 32 bits


def x86(level: int, op: str, t: VType, s: VType) -> str | None:
    """C statements for SSE2 (level 0), AVX2 (1) or AVX-512 (2); None: use the portable body."""
    wide = t if t.elem.bits == 32 else s
    if t.lanes != s.lanes or wide.bytes not in _PREFIX or wide.bytes > 16 << level:
        return None
    if op == "near":
        return _near(level, t) if (t.elem.name, s.elem.name) == ("i32", "f32") else None
    if op != "cvt" or wide.elem.kind not in "iu":
        return None
    if t.elem.bits == 32 and s.elem.kind in "iu" and s.elem.bits < 32:
        return _widen(level, t, s)
    if s.elem.bits == 32 and t.elem.kind in "iu" and t.elem.bits < 32:
        return _narrow(level, t, s)
    return None


def _near(level: int, t: VType) -> str:
    """Clamped before it is rounded; a NaN, which the clamp makes a number of, becomes 0."""
    p, r = _PREFIX[t.bytes], f"__m{t.bytes * 8}"
    clamp = f"{p}_min_ps({p}_max_ps(({r})a, {p}_set1_ps((float)low)), {p}_set1_ps((float)high))"
    if t.bytes == 64:
        order = "_mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q)"
        return f"return ($T)_mm512_maskz_cvtps_epi32({order}, {clamp});"
    order = f"{p}_cmp_ps(({r})a, ({r})a, _CMP_ORD_Q)" if level else "_mm_cmpord_ps((__m128)a, (__m128)a)"
    return f"return ($T){p}_cvtps_epi32({p}_and_ps({clamp}, {order}));"


def _widen(level: int, t: VType, s: VType) -> str:
    held = _register(s)
    bits, signed = s.elem.bits, s.elem.kind == "i"
    if level:
        return f"return ($T){_PREFIX[t.bytes]}_cvtep{s.elem.kind}{bits}_epi32({held});"
    lines = [f"__m128i x = {held};"]
    lines += ["x = _mm_unpacklo_epi8(x, x);"] if bits == 8 else []
    shift = f"_mm_{'srai' if signed else 'srli'}_epi32(_mm_unpacklo_epi16(x, x), {32 - bits})"
    return "\n".join([*lines, f"return ($T){shift};"])


def _narrow(level: int, t: VType, s: VType) -> str:
    p, r, bits = _PREFIX[s.bytes], f"__m{s.bytes * 8}i", t.elem.bits
    if level == 2:
        return _result(t, f"{p}_cvtepi32_epi{bits}(({r})a)")
    if level == 1:
        rest = ", ".join(["-1"] * (16 - 16 * bits // 32))
        order = f"_mm_setr_epi8({_FIRST[bits]}, {rest})"
        if s.bytes == 16:
            return _result(t, f"_mm_shuffle_epi8((__m128i)a, {order})")
        v = f"const __m256i v = _mm256_shuffle_epi8((__m256i)a, _mm256_broadcastsi128_si256({order}));\n"
        join = f"_mm_unpacklo_epi{4 * bits}"
        return v + _result(t, f"{join}(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1))")
    if bits == 16:
        return _result(t, "_mm_packs_epi32(_mm_srai_epi32(_mm_slli_epi32((__m128i)a, 16), 16), _mm_setzero_si128())")
    low = "_mm_and_si128((__m128i)a, _mm_set1_epi32(255))"
    words = f"_mm_packs_epi32({low}, _mm_setzero_si128())"
    return _result(t, f"_mm_packus_epi16({words}, _mm_setzero_si128())")


def _register(s: VType) -> str:
    """A vector of at most a register as the low part of a register."""
    if s.bytes == 4:
        return "_mm_cvtsi32_si128((int)a)"
    if s.bytes == 8:
        return "_mm_cvtsi64_si128((long long)a)"
    return f"(__m{s.bytes * 8}i)a"


def _result(t: VType, register: str) -> str:
    """The low part of a register as a vector of fewer bytes."""
    if t.bytes == 4:
        return f"return ($T)_mm_cvtsi128_si32({register});"
    if t.bytes == 8:
        return f"return ($T)_mm_cvtsi128_si64({register});"
    return f"return ($T){register};"


def neon(op: str, t: VType, s: VType) -> str | None:
    """C statements for vectors of four elements of 32 bits; None: use the portable body."""
    if t.lanes != 4 or s.lanes != 4:
        return None
    if op == "near" and (t.elem.name, s.elem.name) == ("i32", "f32"):
        near = "vcvtnq_s32_f32((float32x4_t)a)"  # saturates; NaN gives 0
        return f"return ($T)vminq_s32(vmaxq_s32({near}, vdupq_n_s32(low)), vdupq_n_s32(high));"
    if op != "cvt" or not {t.elem.kind, s.elem.kind} <= {"i", "u"}:
        return None
    if t.elem.bits == 32 and s.elem.bits < 32:
        x = "su"[s.elem.kind == "u"]
        if s.elem.bits == 16:
            return f"return ($T)vmovl_{x}16(({_NEON[x]}16x4_t)a);"
        low = "vcreate_u8((uint32_t)a)"
        low = low if x == "u" else f"vreinterpret_s8_u8({low})"
        return f"return ($T)vmovl_{x}16(vget_low_{x}16(vmovl_{x}8({low})));"
    if s.elem.bits == 32 and t.elem.bits < 32:
        words = "vmovn_u32((uint32x4_t)a)"
        if t.elem.bits == 16:
            return f"return ($T){words};"
        joined = f"vmovn_u16(vcombine_u16({words}, vdup_n_u16(0)))"
        return f"return ($T)vget_lane_u32(vreinterpret_u32_u8({joined}), 0);"
    return None


_NEON = {"s": "int", "u": "uint"}
