from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.artifact.naming import MAX_LENGTH, RESERVED, c_identifier


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("silero_vad_16k", "silero_vad_16k"),
        ("ResNet-50", "ResNet_50"),
        ("2dconv", "m_2dconv"),
        ("int", "m_int"),
        ("operator", "m_operator"),
        ("NUL", "m_NUL"),
        ("_leading__double_", "leading_double"),
        ("café", "cafe"),
        ("x; rm -rf $(HOME)", "x_rm_rf_HOME"),
        ("", "model"),
        ("...", "model"),
    ],
)
def test_known_names(name: str, expected: str) -> None:
    assert c_identifier(name) == expected


def test_names_that_lose_letters_stay_different() -> None:
    assert c_identifier("模型") != c_identifier("网络")
    assert c_identifier("a" * 100) != c_identifier("a" * 101)


@given(st.text(max_size=80))
def test_every_name_is_an_identifier(name: str) -> None:
    result = c_identifier(name)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", result)
    assert "__" not in result and result not in RESERVED and len(result) <= MAX_LENGTH + 2
