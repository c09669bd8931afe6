"""An Inspection as text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.graph.symbolic import Dim

if TYPE_CHECKING:
    from headrace.measure.inspect import Inspection

NAME_WIDTH = 44


def table(found: Inspection) -> str:
    """Head, one line per node, operators, totals, notes, time."""
    lines = [f"{found.name}: opset {found.opset}, {_folded(found)}"]
    lines += [f"  input   {name}: {spec}" for name, spec in found.inputs.items()]
    lines += [f"  output  {name}: {spec}" for name, spec in found.outputs.items()]
    lines += [
        f"  unknown {dim}, in {', '.join(names)}: fix it with shapes= (--shape), or stay with formulas"
        for dim, names in found.unknown.items()
    ]
    lines += ["", *_nodes(found), ""]
    counts = ", ".join(f"{count} {op}" for op, count in found.operators.items())
    lines += [
        f"operators   {counts or 'none'}",
        f"parameters  {found.parameters:,} ({_size(found.parameter_bytes)})",
        f"work        {_work(found)}",
        *(f"note        {note}" for note in found.notes),
        *(["", "time", *(f"  {line}" for line in str(found.time).splitlines())] if found.time else []),
    ]
    return "\n".join(lines)


def grouped(value: Dim | None) -> str:
    """A number or formula with thousands apart; "?" for None."""
    if value is None:
        return "?"
    return re.sub(r"\d{4,}", lambda digits: f"{int(digits.group()):,}", str(value))


def _work(found: Inspection) -> str:
    if found.macs_complete:
        return f"{grouped(found.macs)} MAC"
    unknown = sum(node.macs is None for node in found.nodes)
    return f"{grouped(found.macs)} MAC, and that of {unknown} nodes whose extents are not known"


def _folded(found: Inspection) -> str:
    left = len(found.nodes)
    if left == found.source_nodes:
        return f"{left} nodes"
    return f"{found.source_nodes} nodes in the file, {left} after folding"


def _nodes(found: Inspection) -> list[str]:
    if not found.nodes:
        return ["no nodes: every output is a constant or an input"]
    rows = [
        (node.name, node.op, "; ".join(node.outputs.values()), f"{node.parameters:,}", grouped(node.macs))
        for node in found.nodes
    ]
    head = ("node", "operator", "output", "parameters", "MAC")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(5)]
    widths[0] = min(widths[0], NAME_WIDTH)
    return [_row(head, widths), *(_row([c if c != "0" else "" for c in row], widths) for row in rows)]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *words = cells[:3]
    texts = [
        f"{_tail(name, widths[0]):{widths[0]}}",
        *(f"{c:{w}}" for c, w in zip(words, widths[1:3], strict=True)),
    ]
    numbers = [f"{cell:>{width}}" for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*texts, *numbers]).rstrip()


def _tail(text: str, width: int) -> str:
    """The end of a long name says more than its beginning."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _size(count: int) -> str:
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
