"""The C identifier that a model's name becomes."""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_LENGTH = 48

_C = """
auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile
while"""
_CPP = """
alignas alignof and asm bitand bitor bool catch class compl concept const_cast constexpr decltype delete
dynamic_cast explicit export false friend import module mutable namespace new noexcept not nullptr operator or
private protected public reinterpret_cast requires static_assert static_cast template this thread_local throw
true try typeid typename using virtual wchar_t xor typeof linux unix main NULL"""
_FILES = "con prn aux nul " + " ".join(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))
RESERVED = frozenset((_C + " " + _CPP + " " + _FILES).split())


def c_identifier(name: str) -> str:
    """Turn any text into an identifier that is safe in C, C++, a shell and a file name.

    Accents are dropped, every run of other characters than A–Z a–z 0–9 becomes one underscore,
    underscores at the ends fall away, a leading digit and a reserved word get the prefix "m_".
    What has no such character at all is "model"; a name that is too long is cut. A name that lost
    letters or was cut ends in eight hex digits of its hash, so that different names stay different.

    >>> [c_identifier(n) for n in ("silero-vad", "2dconv", "int", "café", "a;rm -rf", "模型")]
    ['silero_vad', 'm_2dconv', 'm_int', 'cafe', 'a_rm_rf', 'model_33f8f2b4']
    """
    plain = unicodedata.normalize("NFKD", name)
    lost = any(c.isalnum() and not c.isascii() for c in plain)
    text = re.sub(r"[^A-Za-z0-9]+", "_", "".join(c for c in plain if not unicodedata.combining(c))).strip("_")
    text = text or "model"
    if text[0].isdigit() or text.lower() in RESERVED or text in RESERVED:
        text = f"m_{text}"
    if lost or len(text) > MAX_LENGTH:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        text = f"{text[: MAX_LENGTH - 9].rstrip('_')}_{digest}"
    return text
