"""The last frame of a signal: known at its end, held from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import dtype_name
from headrace.graph.symbolic import Dim
from headrace.ops.timed import Emit, Final, Plan, Read, Site, TimeFact


def is_last(place: Dim, fact: TimeFact) -> bool:
    """Whether an index along time is that of the last frame."""
    return place in (-1, fact.length - 1)


def last_frame(site: Site, fact: TimeFact, index_shape: tuple[int, ...] | None) -> Plan:
    """The last frame of input 0, once for every index, or (None) with its axis kept."""
    source = site.node.inputs[0]
    assert source is not None
    dims = [1 if a == fact.axis else int(str(d)) for a, d in enumerate(site.dims(0))]
    fact = replace(fact, delay=max(0, fact.delay))

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        block, count = e.read(0), int(e.chunk * fact.rate)
        if e.overrun(fact):
            left = e.left(fact)
            place = e.op("Clip", e.op("Sub", left, e.const([1])), e.const(0), e.const(count - 1))
            held = e.state("last", np.zeros(dims, np.dtype(dtype_name(source.dtype))))
            real = e.op("Greater", left, e.const([0]))
            frame = e.op("Where", real, e.op("Gather", block, place, axis=fact.axis), held)
            e.keep(held, frame)
        else:
            frame = e.op("Slice", block, e.const([count - 1]), e.const([count]), e.const([fact.axis]))
        if index_shape is None:
            return [frame]
        return [e.op("Gather", frame, e.const(np.zeros(index_shape, np.int64)), axis=fact.axis)]

    return Plan((Read(source, own=True),), (Final(),), emit, "last frame", ((fact.length, 1),))
