"""Templates of C functions over a type: placeholders to C text, and the text of a whole function.

Type letters: T the type, E its element (EU as unsigned integer), M and I the signed and U the unsigned
integer type of the same shape, H half the lanes, S the source type (SU, SI its integer types), F f32, D
f64, J i32, K u32 and X u16 of as many lanes.
`$T` is a C type; `name$(`, `name$U(` and `name$U$T(` are calls of hr_name_T, hr_name_U and hr_name_U_T.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from headrace.targets.vector_types import ELEMS, VType

_LETTERS = "SU|SI|FU|EU|[TEMUISHFDJKX]"
_CALL = re.compile(rf"\b([a-z][a-z0-9_]*)((?:\$(?:{_LETTERS}))+|\$)\(")
_TYPE = re.compile(rf"\$({_LETTERS})\b")
_SCALAR_SPLAT = re.compile(r"\bhr_splat_(?:[fiu](?:8|16|32|64))\(([-+\w.]*)\)")


def letters(t: VType, s: VType | None = None) -> dict[str, VType]:
    """Meaning of the type letters for a function of type t (and source type s)."""
    named = {
        "T": t,
        "E": t.with_lanes(1),
        "M": t.of("i"),
        "I": t.of("i"),
        "U": t.of("u"),
        "H": t.with_lanes(max(1, t.lanes // 2)),
        "EU": t.of("u").with_lanes(1),
        "F": VType(ELEMS["f32"], t.lanes),
        "FU": VType(ELEMS["u32"], t.lanes),
        "D": VType(ELEMS["f64"], t.lanes),
        "J": VType(ELEMS["i32"], t.lanes),
        "K": VType(ELEMS["u32"], t.lanes),
        "X": VType(ELEMS["u16"], t.lanes),
    }
    if s is not None:
        named |= {"S": s, "SU": s.of("u"), "SI": s.of("i")}
    return named


def expand(text: str, t: VType, s: VType | None = None, constants: Mapping[str, str] | None = None) -> str:
    """Template to C for type t (and source type s)."""
    types = letters(t, s)
    for name, value in (constants or {}).items():
        text = re.sub(re.escape(name) + r"\b", value, text)

    def call(match: re.Match[str]) -> str:
        used = re.findall(rf"\$({_LETTERS})", match[2]) or ["T"]
        return f"hr_{match[1]}_{'_'.join(types[letter].name for letter in used)}("

    text = _CALL.sub(call, text)
    text = _TYPE.sub(lambda m: types[m[1]].c, text)
    return _SCALAR_SPLAT.sub(r"\1", text)


def function(name: str, returns: str, params: str, body: str, attribute: str, wide: Collection[str]) -> str:
    """C text of one inline function. Values of the C types in `wide` travel by address, behind a macro.

    Compilers warn about the calling convention of vectors wider than a register even in functions that are
    always inlined; pointers have no such convention, and disappear when the function is inlined.
    """
    lines = body.split("\n")
    arguments = [] if params == "void" else [_split(p) for p in params.split(", ")]
    if returns not in wide and not any(c in wide for c, _ in arguments):
        if len(lines) == 1:
            return f"{attribute} {returns} {name}({params}) {{ {lines[0]} }}"
        return "\n".join([f"{attribute} {returns} {name}({params}) {{", *(f"    {line}" for line in lines), "}"])
    formal, passed, copies = [], [], []
    for c, n in arguments:
        formal.append(f"const {c} *{n}_" if c in wide else f"{c}{' ' if c[-1] != '*' else ''}{n}")
        passed.append(f"&hr_{n}_" if c in wide else f"hr_{n}_")  # names that no argument contains
        copies += [f"{c} {n} = *{n}_;"] if c in wide else []
    local = "".join(f"{c} hr_{n}_ = ({n}); " for c, n in arguments)
    call = f"{name}_({', '.join([*(['&hr_out_'] if returns in wide else []), *passed])});"
    if returns in wide:
        formal.insert(0, f"{returns} *out_")
        lines = [re.sub(r"\breturn (.*);", r"*out_ = \1;", line) for line in lines]
        local, call, returns = f"{local}{returns} hr_out_; ", f"{call} hr_out_;", "void"
    text = [
        f"{attribute} {returns} {name}_({', '.join(formal)}) {{",
        *(f"    {x}" for x in copies + lines),
        "}",
    ]
    names = ", ".join(n for _, n in arguments)
    return "\n".join([*text, f"#define {name}({names}) __extension__ ({{ {local}{call} }})"])


def _split(param: str) -> tuple[str, str]:
    """`const float *p` to ("const float *", "p")."""
    match = re.match(r"(.*[ *])([a-z]\w*)$", param)
    if match is None:
        raise ValueError(f"not a parameter: {param!r}")
    return match[1].strip(), match[2]
