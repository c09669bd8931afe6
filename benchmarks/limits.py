"""What the machine could do in the time of a call, measured in the same race as the call itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import headrace as hr
from headrace.measure.machine import best_ns, probes
from headrace.measure.profile_report import ProfileReport
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain

LARGE, SLOW = 0.05, 0.5  # share of a model's time, share of the limit
SAMPLE_NS = 200_000  # a probe takes at least this long, so that calling it does not count
Call = Callable[[], object]


def limit_calls(program: hr.Program, io_bytes: int) -> tuple[dict[str, Call], dict[str, float]]:
    """Calls "reading" and "arithmetic", and how often each does what one run of the program needs.

    reading: its weights, inputs and outputs once; arithmetic: its multiply-adds in full vectors.
    """
    manifest = program.info.manifest
    target = get_target(manifest["target"]["name"])
    toolchain = find_toolchain(manifest["toolchain"]["kind"], manifest["target"]["triple"])
    probe = probes(target, toolchain)
    calls: dict[str, Call] = {}
    times: dict[str, float] = {}
    kernels = sum(k.constant_bytes for k in program.info.kernels)
    wanted = min(program.info.weight_bytes, kernels) + io_bytes
    read, nbytes = probe.read(wanted)
    count = _count(read)
    calls["reading"], times["reading"] = (lambda: read(count)), count * nbytes / max(wanted, 1)
    if program.info.macs:
        fma, macs = probe.fma()
        passes = max(_count(fma), 1)
        calls["arithmetic"], times["arithmetic"] = (lambda: fma(passes)), passes * macs / program.info.macs
    return calls, times


def _count(call: Callable[[int], object]) -> int:
    return max(1, round(SAMPLE_NS / best_ns(call, SAMPLE_NS // 10, rounds=3)))


def shares(bench: Mapping[str, Any], times: Mapping[str, float]) -> dict[str, Any]:
    """From the race: µs of each limit, and limit / time of bound calls, the median over the rounds."""
    ours = bench["ours"]["bound"]["samples_us"]
    limits = {name: [us / times[name] for us in bench["extra"][name]["samples_us"]] for name in times}
    whole = [max(parts) for parts in zip(*limits.values(), strict=True)]
    per_round = [limit / us for limit, us in zip(whole, ours, strict=True)]
    return {
        **{f"{name}_us": statistics.median(values) for name, values in limits.items()},
        "share": statistics.median(per_round),
        "reading_share": statistics.median(limit / us for limit, us in zip(limits["reading"], ours, strict=True)),
    }


def slow_kernels(report: ProfileReport) -> list[dict[str, Any]]:
    """Kernels that take more than 5 % of the time and reach less than half of their limit, with the reasons."""
    whole = sum(k.us for k in report.kernels) or 1.0
    slow = [k for k in report.kernels if k.us > LARGE * whole and k.limit_us < SLOW * k.us]
    return [
        {
            "nodes": list(k.kernel.nodes),
            "us": k.us,
            "time": k.us / whole,
            "limit": k.limit_us / k.us,
            "bound": k.bound,
            "reasons": list(k.reasons),
        }
        for k in sorted(slow, key=lambda k: -k.us)
    ]
