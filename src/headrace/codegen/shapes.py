"""Extents of outputs that follow from run-time extents, as text: "T", "2*T + 1", "(T + 1)//2"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType

from headrace.errors import InvalidModel
from headrace.program.expr import Expr

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%"}
_LEVELS = {"add": 1, "sub": 1, "mul": 2, "floordiv": 2, "mod": 2}


def extent_text(e: Expr) -> str | None:
    """Text of an extent; None when it depends on more than symbols."""
    if e.op == "const":
        return str(e.arg)
    if e.op == "sym":
        return str(e.arg.name)
    if e.op not in _SIGNS and e.op not in ("min", "max"):
        return None
    parts = [extent_text(a) for a in e.args]
    if any(p is None for p in parts):
        return None
    if e.op in ("min", "max"):
        return f"{e.op}({parts[0]}, {parts[1]})"
    level = _LEVELS[e.op]
    left, right = (
        f"({p})" if _LEVELS.get(a.op, 3) < level + n else str(p)
        for n, (a, p) in enumerate(zip(e.args, parts, strict=True))
    )
    sign = _SIGNS[e.op]
    return f"{left} {sign} {right}" if level == 1 else f"{left}{sign}{right}"


def extent_number(text: str, symbols: Mapping[str, int]) -> int:
    """The value of such a text. Raises InvalidModel for a symbol without a value, or no extent at all."""
    if text in symbols:
        return symbols[text]
    code = _compiled(text, tuple(symbols))
    places = {f"s{n}": value for n, value in enumerate(symbols.values())}
    return int(eval(code, {"__builtins__": {}, "min": min, "max": max}, places))


@lru_cache(maxsize=256)
def _compiled(text: str, names: tuple[str, ...]) -> CodeType:
    """Python code over s0, s1, …; nothing but numbers, symbols, arithmetic, min and max gets into it."""
    known = sorted(((re.escape(name), n) for n, name in enumerate(names)), key=lambda k: -len(k[0]))
    symbols = "|".join(rf"(?P<s{n}>(?<!\w){name}(?!\w))" for name, n in known)
    token = re.compile(
        rf"\s*(?:(?P<call>(?:min|max)(?=\()){'|' if symbols else ''}{symbols}|(?P<plain>\d+|//|[-+*%(),]))"
    )
    out, at = [], 0
    while text[at:].strip():
        match = token.match(text, at)
        if match is None:
            raise InvalidModel(
                f"extent {text!r}: {text[at:].strip()!r} is no symbol ({', '.join(names) or 'there are none'})"
            )
        kind = str(match.lastgroup)
        out.append(match[kind] if kind in ("call", "plain") else kind)
        at = match.end()
    try:
        return compile(" ".join(out), "<extent>", "eval")
    except SyntaxError:
        raise InvalidModel(f"{text!r} is no extent") from None
