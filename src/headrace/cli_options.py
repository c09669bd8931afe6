"""Options of the command line: from text to the arguments of the verbs."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from headrace.spec import TensorSpec


def add_compile_options(sub: argparse.ArgumentParser) -> None:
    """What compile() takes beside the model."""
    sub.add_argument("--target", metavar="T", help="see `headrace targets` (default: native)")
    sub.add_argument("--toolchain", choices=("gcc", "clang", "zig"), help="default: the first that is here")
    sub.add_argument("--shape", action="append", type=parse_shape, default=[], metavar="x=1x3x224x224")
    sub.add_argument("--bound", action="append", type=parse_bound, default=[], metavar="T=512", help="or T=512/8")
    sub.add_argument("--const", action="append", type=parse_constant, default=[], metavar="sr=16000")
    sub.add_argument("--state", action="append", type=parse_pair, default=[], metavar="h_in=h_out")
    sub.add_argument(
        "--axis", action="append", type=parse_axis, default=[], metavar="x=1",
        help="time axis of x: stream the model first; with --state: of a step model made elsewhere",
    )  # fmt: skip
    sub.add_argument("--threads", type=int, metavar="N", help="the most that work on one large kernel; default: 1")
    add_time_options(sub)


def compile_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of compile(), and of stream() before it: those that were given."""
    given = {
        "target": arguments.target,
        "toolchain": arguments.toolchain,
        "shapes": _unique(arguments.shape, "--shape"),
        "bounds": _unique(arguments.bound, "--bound"),
        "constants": _unique(arguments.const, "--const"),
        "state": _unique(arguments.state, "--state"),
        "axes": _unique(arguments.axis, "--axis"),
        "threads": arguments.threads,
        **time_options(arguments),
    }
    return {name: value for name, value in given.items() if value is not None and value != {}}


def add_stream_options(sub: argparse.ArgumentParser) -> None:
    """What stream() takes beside the model."""
    sub.add_argument("--axis", action="append", type=parse_axis, default=[], required=True, metavar="x=1")
    sub.add_argument("--shape", action="append", type=parse_shape, default=[], metavar="x=1x3xT")
    sub.add_argument("--const", action="append", type=parse_constant, default=[], metavar="sr=16000")
    add_time_options(sub)
    sub.add_argument("--chunk", type=int, metavar="N", help="frames per step (default: the fewest)")
    sub.add_argument("--align", action="store_true", help="delay all outputs to the slowest")


def add_time_options(sub: argparse.ArgumentParser) -> None:
    """What decides how a model streams, beside its time axes."""
    sub.add_argument("--multiple", action="append", type=parse_axis, default=[], metavar="x=2",
                     help="the length of x is always a multiple of this")  # fmt: skip
    sub.add_argument("--max-past", type=int, metavar="N", help="frames that unlimited attention remembers")
    sub.add_argument("--length", action="append", type=parse_pair, default=[], metavar="x_lens=x",
                     help="input that holds the number of frames of x")  # fmt: skip
    sub.add_argument("--window", type=int, metavar="N",
                     help="another function: the model on every window of N frames")  # fmt: skip
    sub.add_argument("--hop", type=int, metavar="N", help="frames from one window to the next (default: 1)")


def stream_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of stream(): those that were given."""
    given = {
        "axes": _unique(arguments.axis, "--axis"),
        "shapes": _unique(arguments.shape, "--shape"),
        "constants": _unique(arguments.const, "--const"),
        **time_options(arguments),
        "chunk": arguments.chunk,
        "align": arguments.align or None,
    }
    return {name: value for name, value in given.items() if value is not None and value != {}}


def time_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of add_time_options() that were given."""
    given = {
        "multiple": _unique(arguments.multiple, "--multiple"),
        "max_past": arguments.max_past,
        "window": arguments.window,
        "hop": arguments.hop,
        "lengths": _unique(arguments.length, "--length"),
    }
    return {name: value for name, value in given.items() if value is not None and value != {}}


def parse_pair(text: str) -> tuple[str, str]:
    """'a=b' as ("a", "b"). The name may hold every character but "="."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} should look like name=value")
    return name, value


def parse_shape(text: str) -> tuple[str, tuple[int | str, ...]]:
    """'x=1x3xT' as ("x", (1, 3, "T")); "x=" is a scalar's empty shape."""
    name, equals, value = text.rpartition("=")
    dims = tuple(int(d) if d.isdecimal() else d for d in value.split("x")) if value else ()
    if not (name and equals) or any(isinstance(d, str) and not d.isidentifier() for d in dims):
        raise argparse.ArgumentTypeError(f"{text!r} should look like x=1x3x224x224")
    return name, dims


def parse_axis(text: str) -> tuple[str, int]:
    """'x=1' as ("x", 1)."""
    name, value = parse_pair(text)
    try:
        return name, int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} should look like x=1") from None


def parse_bound(text: str) -> tuple[str, int | tuple[int, int]]:
    """'T=512' as ("T", 512); "T=512/8" as ("T", (512, 8)), where T must be a multiple of 8."""
    name, value = parse_pair(text)
    bound, slash, divisor = value.partition("/")
    if not bound.isdecimal() or (slash and not divisor.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} should look like T=512 or T=512/8")
    return name, (int(bound), int(divisor)) if slash else int(bound)


def parse_constant(text: str) -> tuple[str, Any]:
    """'sr=16000' as ("sr", 16000); also floats, true, false, lists such as [1,2], and .npy files."""
    name, value = parse_pair(text)
    if value.endswith(".npy"):
        return name, load_array(value, None)
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number, a list, true, false or a .npy file") from None


def parse_file(text: str) -> tuple[str, str]:
    """'x=x.npy' as ("x", "x.npy")."""
    name, value = parse_pair(text)
    if not value.endswith(".npy"):
        raise argparse.ArgumentTypeError(f"{text!r} should name a .npy file")
    return name, value


def is_artifact(path: str) -> bool:
    """Whether a MODEL|DIR argument is a folder, and so not a model file."""
    return Path(path).is_dir()


def load_array(path: str, spec: TensorSpec | None) -> np.ndarray[Any, Any]:
    """An array from a .npy file. ValueError when it is none, or holds Python objects.

    bfloat16 and its like, which .npy files hold as plain bytes, get their type back from `spec`.
    """
    import numpy as np

    from headrace.artifact.ports import numpy_dtype

    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy file with numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} holds several arrays; give a .npy file")
    if array.dtype.kind == "V" and spec is not None and array.dtype.itemsize == numpy_dtype(spec.dtype).itemsize:
        return array.view(numpy_dtype(spec.dtype))
    return array


def save_array(path: str, array: np.ndarray[Any, Any]) -> None:
    """Write a .npy file."""
    import numpy as np

    np.save(path, array, allow_pickle=False)


def _unique(pairs: list[tuple[str, Any]], option: str) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{option} names {name!r} twice")
    return dict(pairs)
