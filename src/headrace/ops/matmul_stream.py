"""Streaming of products: time may be a row or a batch axis, not the axis that is summed over."""

from __future__ import annotations

from headrace.ops.registry import stream
from headrace.ops.timed import Plan, Site, framewise


def _summed(site: Site) -> Exception:
    return site.refuse(
        "sums over all frames of the signal",
        "whole-sequence attention and pooling need the whole signal; use causal or windowed attention",
    )


@stream("MatMul", "MatMulInteger", "QLinearMatMul")
def matmul(site: Site) -> Plan:
    second = 3 if site.op == "QLinearMatMul" else 1
    if any(i not in (0, second) for i in site.timed()):
        raise site.refuse("has quantisation parameters that change over time", "use static quantisation")
    rank = len(site.out_dims())
    axes = {}
    for i in site.timed():
        fact, dims = site.fact(i), site.dims(i)
        assert fact is not None
        summed = len(dims) - 1 if i == 0 else max(0, len(dims) - 2)
        if fact.axis == summed:
            raise _summed(site)
        if len(dims) == 1:
            raise _summed(site)
        other = len(site.dims(second if i == 0 else 0))
        shift = rank - len(dims) + (1 if other == 1 and len(dims) > 1 else 0)
        place = fact.axis + shift
        if other == 1:
            place = fact.axis - (1 if fact.axis == len(dims) - 1 and i != 0 else 0) if i != 0 else fact.axis
        axes[i] = place
    return framewise(site, axes)


@stream("Gemm")
def gemm(site: Site) -> Plan:
    axes = {}
    for i in site.timed():
        fact = site.fact(i)
        assert fact is not None
        if i == 0:
            row = 1 if site.attr("transA", 0) else 0
            if fact.axis != row:
                raise _summed(site)
            axes[0] = 0
        elif i == 1:
            column = 0 if site.attr("transB", 0) else 1
            if fact.axis != column:
                raise _summed(site)
            axes[1] = 1
        else:
            axes[2] = fact.axis + 2 - len(site.dims(2))
    return framewise(site, axes)


@stream("Einsum")
def einsum(site: Site) -> Plan:
    terms, right = _letters(site)
    axes = {}
    for i in site.timed():
        fact = site.fact(i)
        assert fact is not None
        letter = terms[i][fact.axis]
        if letter not in right or terms[i].count(letter) > 1:
            raise _summed(site)
        for k, term in enumerate(terms):
            place = term.find(letter)
            if k != i and place >= 0 and site.fact(k) is None and site.dims(k)[place] != 1:
                raise site.refuse(f"pairs frames with axis {letter!r} of a fixed operand", "use fixed weights")
        axes[i] = right.index(letter)
    return framewise(site, axes)


def _letters(site: Site) -> tuple[list[str], str]:
    """Letters of every operand and of the result, capitals of another alphabet for those under an ellipsis."""
    equation = str(site.attr("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        right = ("..." if "..." in left else "") + "".join(
            sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        )
    hidden = [len(site.dims(i)) - len(term.replace("...", "")) for i, term in enumerate(terms)]
    most = max((n for n, term in zip(hidden, terms, strict=True) if "..." in term), default=0)
    names = "".join(chr(ord("α") + k) for k in range(most))
    full = [term.replace("...", names[most - n :]) for n, term in zip(hidden, terms, strict=True)]
    return full, right.replace("...", names)
