"""The trained models are the files named, run in onnxruntime, and depend on their inputs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from zoo import catalog, entries, fetch
from zoo.reference import onnxruntime_outputs, session

CASES = [(name, label) for name in catalog.ONNX_NAMES for label in catalog.model(name).variants]


@pytest.mark.models
@pytest.mark.parametrize("name", catalog.MODELS)
def test_file_is_the_one_named(name: str) -> None:
    assert fetch.installed(catalog.model(name))
    assert catalog.path(name).is_file()


@pytest.mark.models
@pytest.mark.parametrize(("name", "label"), CASES)
def test_every_output_depends_on_the_input(name: str, label: str) -> None:
    fixed = catalog.constants(catalog.model(name).variant(label))
    first, second = (
        onnxruntime_outputs(catalog.path(name), {**catalog.feeds(name, seed, label), **fixed}) for seed in (0, 1)
    )
    for output, value in first.items():
        assert np.isfinite(value).all()
        assert not np.array_equal(value, second[output]), output


@pytest.mark.models
@pytest.mark.parametrize(("name", "label"), CASES)
def test_real_inputs_have_the_shapes_of_the_variant(name: str, label: str) -> None:
    options = catalog.model(name).variant(label)
    real, random = catalog.real_feeds(name, label), catalog.feeds(name, 0, label)
    assert {k: (v.shape, v.dtype) for k, v in real.items()} == {k: (v.shape, v.dtype) for k, v in random.items()}
    assert {k: v.shape for k, v in random.items()} == dict(options.shapes)
    assert all(np.isfinite(v).all() for v in real.values())


@pytest.mark.models
@pytest.mark.parametrize(("name", "label"), CASES)
def test_state_pairs_name_inputs_and_outputs(name: str, label: str) -> None:
    run = session(catalog.path(name))
    options = catalog.model(name).variant(label)
    assert set(options.state) <= set(options.shapes)
    assert set(options.state.values()) <= {output.name for output in run.get_outputs()}
    assert set(options.shapes) | set(options.constants) == {given.name for given in run.get_inputs()}


@pytest.mark.models
def test_silero_hears_the_speech_in_the_clip_and_not_the_noise() -> None:
    run = session(catalog.path("silero-step"))
    state = catalog.initial_state(catalog.model("silero-step").variant())
    speech = []
    for step in catalog.real_steps("silero-step"):
        output, next_state = run.run(["output", "stateN"], {**step, **state})
        state = {"state": next_state}
        speech.append(output.item() > 0.5)
    runs = [(heard, len(list(group))) for heard, group in itertools.groupby(speech)]
    assert sum(count for heard, count in runs if heard) / len(speech) == pytest.approx(0.5, abs=0.15)
    assert max(count for heard, count in runs if not heard) * 0.032 > 2.5  # pause, noise, pause


@pytest.mark.models
def test_step_and_sequence_form_of_silero_agree() -> None:
    blocks = catalog.real_feeds("silero-seq", "N=50")
    whole = onnxruntime_outputs(catalog.path("silero-seq"), blocks)["speech_probs"]
    state = np.zeros((2, 1, 128), np.float32)
    for frame, expected in zip(blocks["input"], whole, strict=True):
        step = onnxruntime_outputs(catalog.path("silero-step"), {"input": frame[None], "state": state})
        state = step["stateN"]
        assert step["output"].item() == pytest.approx(expected, abs=1e-4)


def test_a_missing_model_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(entries, "FOLDER", tmp_path)
    with pytest.raises(catalog.ModelMissing, match="make models"):
        catalog.path("nsnet2")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="silero-step"):
        catalog.model("nothing")
    with pytest.raises(ValueError, match="T=100"):
        catalog.model("nsnet2").variant("T=7")
    with pytest.raises(ValueError, match="not an ONNX file"):
        catalog.model("mp-face").variant()


def test_every_package_is_pinned_once() -> None:
    assert {m.package for m in catalog.MODELS.values()} == set(fetch.requirements())
    assert all("==" in requirement for requirement in fetch.requirements().values())
