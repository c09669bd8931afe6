"""Silero VAD as a native program: a spoken clip goes through it step by step, every step is proven.

`make demo` runs it. The model is compiled for this machine, fed 32 ms of sound at a time, and compared with
onnxruntime after every single step, state included. Exit status 1 when any step differs.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import headrace as hr  # noqa: E402
from headrace.measure.bench import bench  # noqa: E402
from headrace.measure.bench_report import BenchReport  # noqa: E402
from headrace.measure.compare import compare  # noqa: E402
from headrace.measure.timing import Ratio  # noqa: E402
from zoo import catalog, features  # noqa: E402
from zoo.reference import session  # noqa: E402

STEP_S = 512 / features.RATE
FLOOR_DB = -60.0  # level drawn as silence
SPEECH = 0.5  # probability from which Silero calls it speech
BLOCKS, ASCII_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
ASCII = str.maketrans({"µ": "u", "–": "-", "·": ".", "━": "="})  # for terminals without UTF-8
SPEED = 4.0  # the animation runs this many times faster than the clip


@dataclass(frozen=True)
class Step:
    """One step. level: 0 silence … 1 full scale; difference: from onnxruntime, of the largest element."""

    level: float
    speech: float
    difference: float
    is_equal: bool


def main() -> int:
    """Compile, stream, draw, prove, measure."""
    parser = argparse.ArgumentParser(description="Silero VAD as a native program, every step proven.")
    parser.add_argument("--fast", action="store_true", help="no animation")
    parser.add_argument("-o", "--out", default=ROOT / "build" / "demo", help="folder of the compiled program")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    options = catalog.model("silero-step").variant()
    path = catalog.path("silero-step")

    console.print(Text("Silero VAD, compiled by Headrace", style="bold"))
    start = time.perf_counter()
    with console.status("compiling …"):
        program = hr.compile(path, shapes=options.shapes, state=options.state, out=arguments.out)
    seconds = time.perf_counter() - start

    is_moving = console.is_terminal and not arguments.fast
    steps = show(console, run(program, path), is_moving)
    with console.status("measuring …"):
        frame = catalog.real_feeds("silero-step")["input"]
        report = bench(program, ["onnxruntime"], hr.load(path), {"input": frame})
    console.print(summary(summarised(program, steps, report, seconds), console))
    return 0 if all(step.is_equal for step in steps) else 1


def run(program: hr.Program, path: Path) -> Iterator[Step]:
    """Push the clip through the program and, state by hand, through onnxruntime; compare after every step."""
    reference, stream = session(path), program.instance()
    state = catalog.initial_state(catalog.model("silero-step").variant())
    for feeds in catalog.real_steps("silero-step"):
        speech = stream.run(feeds)["output"]
        expected, following = reference.run(["output", "stateN"], {**feeds, **state})
        state = {"state": following}
        differences = compare(speech, expected), compare(stream.state()["state"], following)
        yield Step(
            level=_level(feeds["input"][0, 64:]),
            speech=speech.item(),
            difference=max(d.relative for d in differences),
            is_equal=all(d.ok for d in differences),
        )


def _level(samples: Any) -> float:
    """Loudness of a frame on a scale of decibels: 0 at FLOOR_DB and below, 1 at full scale."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return max(0.0, 1.0 - 20 * math.log10(max(rms, 1e-9)) / FLOOR_DB)


def show(console: Console, steps: Iterator[Step], is_moving: bool) -> list[Step]:
    """Draw the timeline while the steps come in, or once at the end; all steps."""
    total = len(features.silero_frames(features.clip()))
    done: list[Step] = []
    if not is_moving:
        done = list(steps)
        console.print(timeline(done, total, console))
        return done
    start = time.perf_counter()
    with Live(timeline(done, total, console), console=console, refresh_per_second=25) as live:
        for step in steps:
            done.append(step)
            live.update(timeline(done, total, console))
            time.sleep(max(0.0, start + len(done) * STEP_S / SPEED - time.perf_counter()))
    return done


def timeline(steps: Sequence[Step], total: int, console: Console) -> Group:
    """Level, probability and decision over time, as wide as the terminal allows; what is to come is blank."""
    width = max(20, min(console.width, 160) - 12)
    per_column = -(-total // width)
    columns = [steps[i : i + per_column] for i in range(0, len(steps), per_column)]
    blocks = BLOCKS if _is_utf8(console) else ASCII_BLOCKS
    level = bars([sum(s.level for s in column) / len(column) for column in columns], 3, blocks)
    speech = bars([max(s.speech for s in column) for column in columns], 3, blocks)
    heard = [any(s.speech >= SPEECH for s in column) for column in columns]
    lines = [
        *(_line("level" if i == 1 else "", row, "cyan") for i, row in enumerate(level)),
        Text(),
        *(_line("speech" if i == 1 else "", row, "green") for i, row in enumerate(speech)),
        _line("", _printable("".join("━" if h else "·" for h in heard), console), "bold green"),
        _line("seconds", ruler(-(-total // per_column), per_column), "dim"),
        _progress(steps, total),
        Text(),
    ]
    return Group(*lines)


def bars(values: Sequence[float], rows: int, blocks: str) -> list[str]:
    """A bar chart, the top row first; values from 0 to 1."""
    steps = len(blocks) - 1
    filled = [round(min(max(value, 0.0), 1.0) * rows * steps) for value in values]
    return [
        "".join(blocks[min(max(height - row * steps, 0), steps)] for height in filled) for row in reversed(range(rows))
    ]


def ruler(columns: int, per_column: int) -> str:
    """A mark at every second."""
    marks = [" "] * (columns + 4)
    for second in range(int(columns * per_column * STEP_S) + 1):
        at = round(second / STEP_S / per_column)
        text = str(second)
        if at + len(text) <= columns:
            marks[at : at + len(text)] = text
    return "".join(marks).rstrip()


def _line(name: str, content: str, style: str) -> Text:
    return Text.assemble((f"{name:>9}  ", "dim"), (content, style))


def _progress(steps: Sequence[Step], total: int) -> Text:
    equal = sum(step.is_equal for step in steps)
    text = f"{equal} of {len(steps)} steps equal to onnxruntime"
    style = "green" if equal == len(steps) else "bold red"
    return _line("proof", text if len(steps) == total else f"{text} so far", style)


def summarised(
    program: hr.Program, steps: Sequence[Step], report: BenchReport, seconds: float
) -> list[tuple[str, str]]:
    """What was proven and measured: name and text of every line."""
    info, peer = program.info, report.peers["onnxruntime"]
    code = "" if info.code_bytes is None else f"{_size(info.code_bytes)} of machine code, "
    lines = [
        ("proof", _proof(steps)),
        (
            "time",
            f"{report.median_us:.1f} µs a step; onnxruntime {peer.version} {peer.median_us:.1f} µs, "
            f"{_times(report.ratio('onnxruntime'))}",
        ),
        ("streams", f"one core keeps up with {STEP_S * 1e6 / report.median_us:,.0f} of them in real time"),
        ("memory", f"{_size(info.memory_bytes)} a stream, {_size(info.weight_bytes)} weights shared by all"),
        ("code", f"{code}no heap, no library: {_shown(program.path)}/*.c"),
        ("compiled", f"in {seconds:.1f} s by {info.toolchain} for {info.target}"),
    ]
    bound = report.bound_ratio("onnxruntime")
    if bound is not None:
        text = f"{report.bound_us:.1f} µs on arrays bound beforehand; onnxruntime {peer.bound_us:.1f} µs, "
        lines.insert(2, ("", text + _times(bound)))
    return lines


def _proof(steps: Sequence[Step]) -> str:
    wrong = sum(not step.is_equal for step in steps)
    worst = max(step.difference for step in steps)
    verdict = f"{wrong} DIFFER" if wrong else "all equal"
    return (
        f"{len(steps)} steps of {STEP_S * 1000:.0f} ms, {verdict}: output and state within {worst:.1e} of "
        "onnxruntime's largest value"
    )


def _times(ratio: Ratio) -> str:
    return f"{ratio.median:.1f} times as long ({ratio.low:.1f}–{ratio.high:.1f})"


def summary(lines: list[tuple[str, str]], console: Console) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right", min_width=9)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, _printable(text, console))
    return table


def _is_utf8(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _printable(text: str, console: Console) -> str:
    """The same in characters that the terminal has."""
    if _is_utf8(console):
        return text
    return text.translate(ASCII).encode("ascii", "replace").decode()


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10**6 else f"{count / 1e3:.1f} kB"


def _shown(path: Path) -> str:
    """Short where it lies in the working folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (hr.Error, catalog.ModelMissing) as error:
        sys.exit(f"demo: {error}")
