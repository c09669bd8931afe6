"""The subjects of the tests, each compiled once for all of them."""

from __future__ import annotations

import functools
from typing import Any

import pytest

import headrace as hr
from benchmarks.subjects import Subject, subjects

SUBJECTS = subjects()


def case(subject: Subject) -> Any:
    """A parameter for pytest, marked as its model demands; one worker has all tests of a model."""
    marks = [pytest.mark.xdist_group(subject.name)]
    marks += [pytest.mark.models] if subject.trained else []
    marks += [pytest.mark.slow] if subject.is_heavy else []
    return pytest.param(subject.name, marks=marks)


CASES = [case(subject) for subject in SUBJECTS.values()]
LIGHT_CASES = [case(subject) for subject in SUBJECTS.values() if not subject.is_heavy]


@functools.cache
def program(name: str) -> hr.Program:
    """The program for this machine."""
    return SUBJECTS[name].compile()
