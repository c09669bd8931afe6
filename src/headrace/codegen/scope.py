"""Where generated statements go: nested blocks of C with names and remembered values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.program.expr import Expr, Extent, var


@dataclass(frozen=True)
class Operand:
    """C text of a value. lanes 1: a scalar of `dtype`; otherwise a vector (bool: a mask of i32 lanes)."""

    text: str
    dtype: str
    lanes: int = 1


@dataclass
class Names:
    """Unique C identifiers within one function."""

    counts: dict[str, int] = field(default_factory=dict)

    def fresh(self, prefix: str) -> str:
        n = self.counts.get(prefix, 0)
        self.counts[prefix] = n + 1
        return f"{prefix}{n}"

    def variable(self, prefix: str, extent: Extent) -> tuple[Expr, str]:
        """A loop variable of the C code with its name; no variable of a program is the same."""
        name = self.fresh(prefix)
        return var(f"c:{name}", extent), name


class Scope:
    """A block `{ … }`: lines, the variables that it binds, and values already computed in it.

    A value is placed in the outermost enclosing block that binds all variables it needs, never outside
    a block that is `fenced` (the side of a branch: what it loads may not exist outside).
    """

    def __init__(self, parent: Scope | None, names: Names, binds: Iterable[Expr] = (), fenced: bool = False):
        self.parent, self.names, self.fenced = parent, names, fenced
        self.binds = frozenset(binds)
        self.lines: list[str] = []
        self.values: dict[tuple[Expr, int], Operand] = {}

    def line(self, text: str) -> None:
        self.lines.append("    " + text)

    def child(self, binds: Iterable[Expr] = (), fenced: bool = False) -> Scope:
        return Scope(self, self.names, binds, fenced)

    def close(self, head: str, inner: Scope, tail: str = "") -> None:
        """Append the block `head { inner }`."""
        self.line(head + " {")
        for text in inner.lines:
            self.line(text)
        self.line("}" + tail)

    def block(self, inner: Scope) -> None:
        """Append the statements of `inner`, in braces."""
        self.line("{")
        for text in inner.lines:
            self.line(text)
        self.line("}")

    def find(self, key: tuple[Expr, int]) -> Operand | None:
        scope: Scope | None = self
        while scope is not None:
            found = scope.values.get(key)
            if found is not None:
                return found
            scope = scope.parent
        return None

    def home(self, variables: frozenset[Expr]) -> Scope:
        """The outermost block in which a value of these variables may be computed."""
        scope = self
        while scope.parent is not None and not scope.fenced and not (scope.binds & variables):
            scope = scope.parent
        return scope
