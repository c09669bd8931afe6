"""Which models the thorough tests take in `make test`: the small ones; `make test-all` takes the rest too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.compiled import SUBJECTS, case

SMALL = (
    "silero-step",
    "dtln-1",
    "dtln-2",
    "dfn3-enc[S=1]",
    "dfn3-df[S=1]",
    "pulsevad",
)


def split_cases(names: tuple[str, ...] = SMALL) -> list[Any]:
    """All light subjects; those not in `names` are marked slow."""
    cases = []
    for subject in SUBJECTS.values():
        if subject.is_heavy:
            continue
        marks = [*case(subject).marks, *([] if subject.name in names else [pytest.mark.slow])]
        cases.append(pytest.param(subject.name, marks=marks))
    return cases


SMALL_CASES = split_cases()
HEAVY_CASES = [case(subject) for subject in SUBJECTS.values() if subject.is_heavy]
