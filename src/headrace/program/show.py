"""Readable text of expressions and modules, for dumps, errors and tests."""

from __future__ import annotations

from headrace.program.expr import Axis, Expr
from headrace.program.ir import Branch, Define, Loop, Module, Statement

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "and": "&", "or": "|",
    "xor": "^", "shl": "<<", "shr": ">>", "lt": "<", "le": "<=", "eq": "==", "ne": "!=",
}  # fmt: skip


def show_expr(e: Expr) -> str:
    """One line of text."""
    if e.op == "const":
        return str(e.arg)
    if e.op == "var":
        return str(e.arg[0])
    if e.op == "sym":
        return str(e.arg.name)
    args = [show_expr(a) for a in e.args]
    if e.op == "load":
        return f"{e.arg.name}[{', '.join(args)}]"
    if e.op in _INFIX:
        return f"({args[0]} {_INFIX[e.op]} {args[1]})"
    if e.op == "reduce":
        kind, axes = e.arg
        return f"{kind}({', '.join(_axis(a) for a in axes)}: {', '.join(args)})"
    if e.op == "cast":
        return f"{e.dtype}({args[0]})"
    if e.op == "check":
        return f"check({args[0]} < {e.arg})"
    return f"{e.op}({', '.join(args)})"


def _axis(a: Axis) -> str:
    return f"{a.var} < {a.extent}"


def show(module: Module) -> str:
    """The whole module, one statement per block."""
    lines = [f"module {module.name}"]
    lines += [f"  input {b!r}" for b in module.inputs]
    for p in module.states:
        how = p.update.name if p.update else f"ring from {p.ring.head.name}" if p.ring else "in place"
        lines.append(f"  state {p.buffer!r} <- {how}")
    lines += [f"  output {b!r}" for b in module.outputs]
    for s in module.body:
        lines += show_statement(s, "  ")
    return "\n".join(lines)


def show_statement(s: Statement, pad: str = "") -> list[str]:
    """Indented lines of one statement."""
    if isinstance(s, Define):
        head = f"{pad}for {', '.join(_axis(a) for a in s.axes)}{' in order' if s.ordered else ''}:"
        lines = [f"{head}    # {', '.join(s.nodes)}"]
        for st in s.stores:
            index = ", ".join(show_expr(i) for i in st.index)
            sign = f" {st.combiner}=" if st.combiner else " ="
            lines.append(f"{pad}  {st.buffer.name}[{index}]{sign} {show_expr(st.value)}")
        return lines
    if isinstance(s, Loop):
        lines = [f"{pad}loop {_axis(s.axis)}{f' while {s.until!r}' if s.until is not None else ''}:"]
        for inner in s.body:
            lines += show_statement(inner, pad + "  ")
        return lines + [f"{pad}  carry {dst.name} <- {src.name}" for dst, src in s.carry]
    if isinstance(s, Branch):
        lines = [f"{pad}if {s.cond!r}:"]
        for inner in s.then:
            lines += show_statement(inner, pad + "  ")
        lines.append(f"{pad}else:")
        for inner in s.other:
            lines += show_statement(inner, pad + "  ")
        return lines
    raise TypeError(type(s).__name__)
