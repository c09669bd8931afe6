"""Other runtimes, opened for a race: one file each, one thread each."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util

from headrace.errors import Error
from headrace.measure.peers.contestant import Case, Contestant

PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tract": "tract",
    "ai-edge-litert": "ai_edge_litert",
    "iree": "iree.compiler",
    "emx-onnx-cgen": "emx_onnx_cgen",
}
INSTALL = {"iree": "iree-base-compiler iree-base-runtime"}  # where the name is not the package's
_MODULES = {name: f"headrace.measure.peers.{package.partition('.')[0]}" for name, package in PACKAGES.items()}


class PeerMissing(Error):
    """A runtime is not installed; the message has the command that installs it."""


class PeerRefused(Error):
    """A runtime is installed but cannot run this model; the message is its own."""


def check_installed(name: str) -> None:
    """ValueError for a runtime nobody knows, PeerMissing for one that is not here."""
    if name not in PACKAGES:
        raise ValueError(f"unknown peer {name!r}; there are {', '.join(PACKAGES)}")
    if not is_installed(name):
        raise PeerMissing(f"{name} is not installed: pip install {INSTALL.get(name, name)}")


def is_installed(name: str) -> bool:
    """Whether a runtime's package is here."""
    try:
        return importlib.util.find_spec(PACKAGES[name]) is not None
    except ModuleNotFoundError:
        return False


def version_of(name: str) -> str:
    """Version of an installed runtime."""
    return importlib.metadata.version(INSTALL.get(name, name).split()[0])


def open_peer(name: str, case: Case) -> Contestant:
    """The model in another runtime, ready to run. Raises ValueError, PeerMissing, PeerRefused."""
    check_installed(name)
    try:
        opened: Contestant = importlib.import_module(_MODULES[name]).open(case)
        opened.outputs()
    except Error as error:
        raise PeerRefused(str(error)) from error
    except Exception as error:
        reason = str(error).partition("Stack backtrace")[0]
        text = " ".join(reason.split()) or type(error).__name__
        raise PeerRefused(f"{name} {version_of(name)} refuses the model: {text[:300]}") from error
    return opened
