"""Wrong arrays for a good program: a ValueError that says what was wrong and what was expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace import cli
from tests.robust.models import relu

X = np.ones((2, 4), np.float32)
WRONG = {
    "missing": ({}, "missing input 'x'.*float32"),
    "another name": ({"z": X}, "'z'|'x'"),
    "one too many": ({"x": X, "z": X}, "'z'"),
    "float64": ({"x": X.astype(np.float64)}, "'x'.*float32.*float64|'x'.*float64.*float32"),
    "int32": ({"x": X.astype(np.int32)}, "'x'.*float32.*int32|'x'.*int32.*float32"),
    "rank 1": ({"x": X[0]}, r"'x'.*\(?2, 4"),
    "rank 3": ({"x": X[None]}, r"'x'.*\(?2, 4"),
    "transposed": ({"x": X.T}, r"'x'.*\(?2, 4"),
    "empty": ({"x": X[:0]}, r"'x'.*\(?2, 4"),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> hr.Program:
    return hr.compile(relu(), out=tmp_path_factory.mktemp("runs") / "relu")


@pytest.mark.parametrize("name", WRONG)
def test_python_says_what_was_expected(name: str, program: hr.Program) -> None:
    feeds, pattern = WRONG[name]
    instance = program.instance()
    for run in (program.run, instance.run):
        with pytest.raises(ValueError, match=pattern):
            run(feeds)
    with pytest.raises(ValueError, match=pattern):
        instance.bind(feeds, {"y": np.empty_like(X)})
    np.testing.assert_array_equal(instance.run({"x": X})["y"], X)


@pytest.mark.parametrize("name", WRONG)
def test_command_line_says_what_was_expected(
    name: str, program: hr.Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = []
    for key, array in WRONG[name][0].items():
        np.save(tmp_path / f"{key}.npy", array)
        words += ["--input", f"{key}={tmp_path / f'{key}.npy'}"]
    status = cli.main(["run", str(program.path), *words, "--output", f"y={tmp_path / 'y.npy'}"])
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.startswith("headrace: ") and len(err.splitlines()) == 1
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(
    ("value", "error"),
    [(None, (TypeError, ValueError)), ("text", (TypeError, ValueError)), (object(), (TypeError, ValueError))],
)
def test_what_is_no_array_is_refused(value: object, error: tuple[type, ...], program: hr.Program) -> None:
    with pytest.raises(error, match="'x'"):
        program.run({"x": value})
    with pytest.raises(TypeError):
        program.run(None)  # type: ignore[arg-type]


def test_lists_are_not_cast(program: hr.Program) -> None:
    """A Python list is float64 to NumPy; nothing is cast silently."""
    with pytest.raises((TypeError, ValueError), match="'x'"):
        program.run({"x": X.tolist()})


def test_views_of_any_layout_give_the_same(program: hr.Program) -> None:
    expected = program.run({"x": X})["y"]
    wide = np.ones((4, 8), np.float32)
    for view in (np.asfortranarray(X), wide[::2, ::2], wide[::-2, ::-2], X.astype(">f4")):
        np.testing.assert_array_equal(program.run({"x": view})["y"], expected)


def test_extents_beyond_their_bound_are_refused() -> None:
    bounded = hr.compile(relu(("n", 4)), shapes={"x": ("n", 4)}, bounds={"n": (8, 2)})
    assert bounded.run({"x": np.ones((6, 4), np.float32)})["y"].shape == (6, 4)
    for rows in (0, 7, 10, 2**20):
        with pytest.raises(ValueError, match=r"'x'|'n'"):
            bounded.run({"x": np.ones((rows, 4), np.float32)})
