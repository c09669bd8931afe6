"""Einsum: any equation, contracted two operands at a time from the left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.ops.numeric import wide
from headrace.ops.registry import Node, lower
from headrace.program.build import Builder, Tensor
from headrace.program.expr import Expr, Extent, cast, index

Labels = tuple[str, ...]
Point = dict[str, Expr]


@dataclass(frozen=True)
class _Operand:
    """Axis labels (each once) and the element, in the accumulator's type, at a point."""

    labels: frozenset[str]
    at: Callable[[Point], Expr]


def parse(equation: str, ranks: list[int]) -> tuple[list[Labels], Labels]:
    """Labels of each operand and of the output; those of an ellipsis are "...1", "...2", … from the right.

    "...ij,jk" for ranks (3, 2) gives [("...1", "i", "j"), ("j", "k")] and ("...1", "i", "k").
    Raises ValueError that says what is wrong.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        raise ValueError(f"{equation!r} has {len(texts)} terms for {len(ranks)} inputs")
    terms = [_term(t, r, equation) for t, r in zip(texts, ranks, strict=True)]
    width = max((sum(x.startswith(".") for x in t) for t in terms), default=0)
    dots = _dots(width)
    flat = [x for t in terms for x in t]
    if not arrow:
        once = sorted({x for x in flat if flat.count(x) == 1 and not x.startswith(".")})
        return terms, (*dots, *once)
    if width and "..." not in right:
        raise ValueError(f"the output of {equation!r} lacks the ellipsis of its inputs")
    before, _, after = right.partition("...")
    out = (*before, *(dots if "..." in right else ()), *after)
    if len(set(out)) != len(out) or not set(out) <= set(flat):
        raise ValueError(f"the output of {equation!r} repeats a label or names one that no input has")
    return terms, out


def _dots(n: int) -> Labels:
    return tuple(f"...{k}" for k in range(n, 0, -1))


def _term(text: str, rank: int, equation: str) -> Labels:
    before, ellipsis, after = text.partition("...")
    letters = before + after
    hidden = rank - len(letters)
    if (letters and not (letters.isalpha() and letters.isascii())) or hidden < 0 or (hidden and not ellipsis):
        raise ValueError(f"term {text!r} of {equation!r} does not fit a tensor of rank {rank}")
    return (*before, *_dots(hidden), *after)


def _extents(node: Node, inputs: list[Tensor], terms: list[Labels]) -> dict[str, Extent]:
    """Extent of each label; 1 gives way to any other."""
    out: dict[str, Extent] = {}
    for t, labels in zip(inputs, terms, strict=True):
        for e, x in zip(t.shape, labels, strict=True):
            known = out.setdefault(x, e)
            if known == 1:
                out[x] = e
            elif e != 1 and e != known:
                raise node.refuse(f"label {x!r} has extents {known} and {e}", "they must be equal, or 1")
    return out


@lower("Einsum")
def einsum(b: Builder, node: Node) -> Tensor:
    inputs = [node.input(k) for k in range(len(node.inputs))]
    try:
        terms, out = parse(str(node.attr("equation", "")), [t.rank for t in inputs])
    except ValueError as e:
        raise node.refuse(str(e), "correct the equation") from None
    extents = _extents(node, inputs, terms)
    operands = [_operand(t, labels) for t, labels in zip(inputs, terms, strict=True)]
    if len(operands) > 1:
        operands = [
            _without(b, operand, _union([*operands[:k], *operands[k + 1 :]]) | set(out), extents)
            for k, operand in enumerate(operands)
        ]
    while len(operands) > 2:
        first, second, *rest = operands
        kept = (first.labels | second.labels) & (_union(rest) | set(out))
        operands = [_materialise(b, [first, second], tuple(sorted(kept)), extents), *rest]
    dtype = inputs[0].dtype

    def element(*i: Expr) -> Expr:
        return cast(_product(b, operands, dict(zip(out, i, strict=True)), extents), dtype)

    return b.compute(tuple(extents[x] for x in out), element)


def _operand(t: Tensor, labels: Labels) -> _Operand:
    def at(p: Point) -> Expr:
        return wide(t[tuple(index(0) if e == 1 else p[x] for e, x in zip(t.shape, labels, strict=True))])

    return _Operand(frozenset(labels), at)


def _union(operands: list[_Operand]) -> frozenset[str]:
    return frozenset().union(*(o.labels for o in operands))


def _without(b: Builder, operand: _Operand, used: frozenset[str], extents: dict[str, Extent]) -> _Operand:
    """The operand summed over the labels that nothing else uses."""
    kept = operand.labels & used
    return operand if kept == operand.labels else _materialise(b, [operand], tuple(sorted(kept)), extents)


def _materialise(b: Builder, operands: list[_Operand], kept: Labels, extents: dict[str, Extent]) -> _Operand:
    """The product summed over all labels but `kept`, as a tensor of its own."""
    t = b.compute(
        tuple(extents[x] for x in kept),
        lambda *i: _product(b, operands, dict(zip(kept, i, strict=True)), extents),
        "einsum",
    )
    return _operand(t, kept)


def _product(b: Builder, operands: list[_Operand], point: Point, extents: dict[str, Extent]) -> Expr:
    """Σ over the labels that `point` lacks of the product of the operands."""
    summed = sorted(_union(operands) - set(point))

    def term(*k: Expr) -> Expr:
        full = {**point, **dict(zip(summed, k, strict=True))}
        value = operands[0].at(full)
        for o in operands[1:]:
            value = value * o.at(full)
        return value

    return b.sum(tuple(extents[x] for x in summed), term) if summed else term()
