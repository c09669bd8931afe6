"""The rules of a well-formed module, checked at every seam."""

from __future__ import annotations

from headrace.program.ir import Module


class Malformed(AssertionError):
    """A module breaks a rule; the text names the statement."""


def verify(module: Module) -> None:
    """Raise Malformed where the module breaks a rule."""
