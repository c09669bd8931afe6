"""Helpers for Module → Module passes: rewrite expressions, rename buffers, visit lists of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from headrace.program.expr import Axis, Expr, load, substitution, transform
from headrace.program.ir import Branch, Buffer, Define, Loop, Module, Statement, Store, reads, writes

ListFn = Callable[[list[Statement]], list[Statement]]
Place = Callable[[tuple[Expr, ...]], tuple[Expr, ...]]  # an index of one buffer → the index in another


def replace_body(module: Module, body: Sequence[Statement]) -> Module:
    """The module with other statements."""
    return replace(module, body=list(body))


def each_list(body: Sequence[Statement], fn: ListFn) -> list[Statement]:
    """Apply `fn` to every list of statements, innermost first."""
    out: list[Statement] = []
    for s in body:
        if isinstance(s, Loop):
            s = replace(s, body=tuple(each_list(s.body, fn)))
        elif isinstance(s, Branch):
            s = replace(s, then=tuple(each_list(s.then, fn)), other=tuple(each_list(s.other, fn)))
        out.append(s)
    return fn(out)


def map_expressions(s: Statement, fn: Callable[[Expr], Expr]) -> Statement:
    """Rewrite every root expression of a statement and of those inside it."""
    if isinstance(s, Define):
        stores = tuple(Store(t.buffer, tuple(fn(i) for i in t.index), fn(t.value), t.combiner) for t in s.stores)
        return s if stores == s.stores else replace(s, stores=stores)
    if isinstance(s, Loop):
        body = tuple(map_expressions(x, fn) for x in s.body)
        return replace(s, body=body, until=fn(s.until) if s.until is not None else None)
    return replace(
        s,
        cond=fn(s.cond),
        then=tuple(map_expressions(x, fn) for x in s.then),
        other=tuple(map_expressions(x, fn) for x in s.other),
    )


def substitute_axes(s: Define, axes: tuple[Axis, ...], mapping: dict[Expr, Expr]) -> Define:
    """A Define over other axes: old variables replaced as `mapping` says."""
    go = substitution(mapping)
    stores = tuple(Store(t.buffer, tuple(map(go, t.index)), go(t.value), t.combiner) for t in s.stores)
    return replace(s, axes=axes, stores=stores)


def innermost(b: Buffer, d: int, name: str) -> tuple[Buffer, Place]:
    """(a scratch buffer like `b` with dimension d last, what an index of `b` becomes there)."""
    order = (*(k for k in range(len(b.shape)) if k != d), d)
    new = Buffer(name, b.dtype, tuple(b.shape[k] for k in order))
    return new, lambda i: tuple(i[k] for k in order)


def move_buffer(body: Sequence[Statement], old: Buffer, new: Buffer, place: Place) -> list[Statement]:
    """old[i] becomes new[place(i)] in every load and store."""
    memo: dict[Expr, Expr] = {}

    def rule(e: Expr) -> Expr | None:
        return load(new, place(e.args)) if e.op == "load" and e.arg is old else None

    def expression(e: Expr) -> Expr:
        return transform(e, rule, memo)

    def statement(s: Statement) -> Statement:
        if old not in reads(s) and old not in writes(s):
            return s
        s = map_expressions(s, expression)
        if isinstance(s, Define):
            if any(t.buffer is old for t in s.stores):
                stores = tuple(
                    Store(new, place(t.index), t.value, t.combiner) if t.buffer is old else t for t in s.stores
                )
                return replace(s, stores=stores)
            return s
        if isinstance(s, Loop):
            return replace(s, body=tuple(statement(x) for x in s.body))
        return replace(s, then=tuple(statement(x) for x in s.then), other=tuple(statement(x) for x in s.other))

    return [statement(s) for s in body]
