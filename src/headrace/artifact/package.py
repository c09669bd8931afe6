"""Writing a folder all at once: built beside its place, moved there when complete, never half-written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import Error

MANIFEST = "manifest.json"
ORIGIN = "origin.json"


class OutputError(Error):
    """The output path cannot be written: occupied by something else, read-only, or no such place."""


def check_output(out: Path) -> None:
    """Raise OutputError unless an artifact can be written to `out`: free, empty, or an artifact of ours."""
    if not out.exists():
        _check_parent(out)
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file; give a folder that is free or holds an earlier artifact")
    foreign = foreign_files(out)
    if foreign:
        raise OutputError(
            f"{out} holds {foreign[0]!r}, which is no part of an artifact; it is not overwritten: "
            "move it away or choose another folder"
        )
    if not os.access(out, os.W_OK) or not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out} is read-only")


def foreign_files(folder: Path) -> list[str]:
    """Names in `folder` that its manifest does not list; all of them when there is no manifest."""
    from headrace.artifact.manifest import listed_files

    names = sorted(entry.name for entry in folder.iterdir())
    return [name for name in names if name not in listed_files(folder)] if names else []


@contextlib.contextmanager
def written_folder(out: Path) -> Iterator[Path]:
    """A new empty folder beside `out` that takes its place when the block ends without an error.

    An earlier artifact at `out` stays as it is until then, and for good when anything fails.
    Raises OutputError where the place cannot be written.
    """
    out = out.resolve()
    check_output(out)
    created = _make_parents(out)
    staging = _new_sibling(out)
    try:
        try:
            yield staging
            _move_into_place(staging, out)
        except OSError as error:
            raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in reversed(created):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _check_parent(out: Path) -> None:
    above = next(p for p in out.absolute().parents if p.exists())
    if not above.is_dir():
        raise OutputError(f"cannot write {out}: {above} is a file")
    if not os.access(above, os.W_OK):
        raise OutputError(f"cannot write {out}: {above} is read-only")


def _make_parents(out: Path) -> list[Path]:
    """Create the folders above `out`; return those that were not there, outermost first."""
    missing = [p for p in out.parents if not p.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {out.parent}: {error.strerror or error}") from error
    return missing[::-1]


def _new_sibling(out: Path) -> Path:
    folder = _sibling(out)
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"cannot write beside {out}: {error.strerror or error}") from error
    return folder


def _sibling(out: Path) -> Path:
    return out.with_name(f".{out.name[:40]}.{secrets.token_hex(6)}")


def _move_into_place(staging: Path, out: Path) -> None:
    check_output(out)
    if not out.exists():
        try:
            staging.rename(out)
            return
        except OSError:
            if not out.exists():
                raise
        check_output(out)  # somebody else was quicker
    staging.chmod(stat.S_IMODE(out.stat().st_mode))
    if _exchange(staging, out):
        shutil.rmtree(staging, ignore_errors=True)
        return
    old = _sibling(out)
    out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one step, so that readers always find one; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    at_cwd, exchange = -100, 2
    if renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))
