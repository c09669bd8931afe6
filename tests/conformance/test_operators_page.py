"""docs/reference/operators.md says what the facets say."""

from __future__ import annotations

from tools.operators import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m tools.operators"
