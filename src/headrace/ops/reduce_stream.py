"""Streaming of reductions, normalisations, softmax: fine within a frame, refused over time; running sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from headrace.graph.facts import dtype_name
from headrace.ops.registry import stream
from headrace.ops.timed import Edge, Emit, Plan, Read, Site, Timed, TimeFact, framewise


def _signal(site: Site) -> TimeFact:
    fact = site.fact(0)
    if fact is None or site.timed() != [0]:
        raise site.refuse("has a parameter that changes over time", "make its parameters constant")
    return fact


def _over_time(site: Site, what: str, hint: str) -> Exception:
    return site.refuse(f"{what} over all of time", hint)


_SUBSTITUTE = (
    "it needs the whole signal; train with a causal form (cumulative or windowed), leave it out, "
    "or run the model on every window of a fixed length, window="
)


@stream(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduction(site: Site) -> Plan:
    fact = _signal(site)
    rank = len(site.dims(0))
    axes = site.const(1) if site.value(1) is not None else None
    if axes is None and site.value(1) is not None:
        raise site.refuse("has axes computed at run time", "make them constant")
    if axes is None or not axes.size:
        if site.attr("noop_with_empty_axes", 0):
            return framewise(site, {0: fact.axis})
        raise _over_time(site, "reduces", _SUBSTITUTE)
    gone = {int(a) % rank for a in axes.reshape(-1)}
    if fact.axis in gone:
        raise _over_time(site, "reduces", _SUBSTITUTE)
    keep = site.attr("keepdims", 1)
    return framewise(site, {0: fact.axis if keep else fact.axis - sum(a < fact.axis for a in gone)})


@stream("ArgMax", "ArgMin")
def arg(site: Site) -> Plan:
    fact = _signal(site)
    axis = int(site.attr("axis", 0)) % len(site.dims(0))
    if axis == fact.axis:
        raise _over_time(site, "searches", _SUBSTITUTE)
    return framewise(site, {0: fact.axis - (not site.attr("keepdims", 1) and axis < fact.axis)})


@stream("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK")
def along_one_axis(site: Site) -> Plan:
    fact = _signal(site)
    if int(site.attr("axis", -1)) % len(site.dims(0)) == fact.axis:
        raise _over_time(site, "normalises" if site.op != "TopK" else "sorts", _SUBSTITUTE)
    return framewise(site, {0: fact.axis})


@stream("LayerNormalization", "RMSNormalization")
def layer_norm(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis >= int(site.attr("axis", -1)) % len(site.dims(0)):
        raise _over_time(site, "normalises", _SUBSTITUTE)
    return framewise(site, {0: fact.axis})


@stream("BatchNormalization")
def batch_norm(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis == 1 or site.attr("training_mode", 0):
        raise site.refuse("uses statistics of the signal", "export the model in inference mode")
    return framewise(site, {0: fact.axis})


@stream("InstanceNormalization", "GroupNormalization")
def instance_norm(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis != 0:
        raise _over_time(site, "normalises", _SUBSTITUTE)
    return framewise(site, {0: 0})


@stream("MeanVarianceNormalization")
def mean_variance(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis in [int(a) % len(site.dims(0)) for a in site.attr("axes", [0, 2, 3])]:
        raise _over_time(site, "normalises", _SUBSTITUTE)
    return framewise(site, {0: fact.axis})


@stream("LRN")
def lrn(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis == 1:
        raise site.refuse("mixes neighbouring frames as channels", "move time to another axis")
    return framewise(site, {0: fact.axis})


@stream("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(site: Site) -> Plan:
    fact = _signal(site)
    if fact.axis > 1:
        raise _over_time(site, "pools", _SUBSTITUTE)
    return framewise(site, {0: fact.axis})


@stream("CumSum", "CumProd")
def running_sum(site: Site) -> Plan:
    """The sum so far is the state; it enters in front of the block, so the order of additions stays.

    An exclusive sum is that of the signal one frame later.
    """
    fact = _signal(site)
    given = site.const(1)
    if given is None:
        raise site.refuse("has an axis computed at run time", "make it constant")
    axis = int(given.reshape(-1)[0]) % len(site.dims(0))
    if axis != fact.axis:
        return framewise(site, {0: fact.axis})
    if site.attr("reverse", 0):
        raise site.refuse("runs from the end to the start", "it needs the whole signal; sum forwards")
    if fact.fold != 1:
        raise site.refuse("runs on from row to row", "reshape rows and time apart")
    neutral = 0 if site.op == "CumSum" else 1
    source = site.node.inputs[0]
    assert source is not None

    def emit(e: Emit) -> Sequence[ir.Value | None]:
        dims = e.dims()
        count = dims[axis]
        dims[axis] = 1
        sofar = e.state("sum", np.full(dims, neutral, np.dtype(dtype_name(source.dtype))))
        joined = e.op("Concat", sofar, e.read(0), axis=axis)
        total = e.clone({0: joined}, drop=("exclusive",))[0]

        def cut(first: int, end: int) -> ir.Value:
            return e.op("Slice", total, e.const([first]), e.const([end]), e.const([axis]))

        e.keep(sofar, cut(count, count + 1))
        return [cut(1, count + 1)]

    before = -1 if site.attr("exclusive", 0) else 0
    read = Read(source, lo=before, hi=before, edge=Edge("constant", neutral), past=True)
    return Plan((read,), (Timed(fact.axis),), emit, "sum so far")
