"""Which tokens spell a label: words in any case, letters only as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._label_tokens import LabelSpelling


@pytest.mark.parametrize("token", ["Yes", "yes", "YES", " Yes", "\u0120yes", "\u2581YES", "[Yes", "yes.", '"Yes"'])
def test_a_word_counts_in_any_case(token: str) -> None:
    """And with what may stand around it in one token."""
    assert LabelSpelling(("Yes", "No")).label_of(token) == "Yes"


@pytest.mark.parametrize("token", ["a", " a", "An", "AB", "", " ", "["])
def test_a_letter_counts_only_as_it_is(token: str) -> None:
    """The word "a" is an article; no other word begins a choice."""
    assert LabelSpelling(("A", "B")).label_of(token) is None


def test_labels_that_differ_in_case_alone_count_as_they_are() -> None:
    """What could be either of the two is none."""
    spelling = LabelSpelling(("No", "no", "Yes"))
    assert [spelling.label_of(token) for token in ("No", " no", "NO", "yes")] == ["No", "no", None, "Yes"]


def test_digits_are_labels() -> None:
    """Grades, each exactly itself."""
    spelling = LabelSpelling(("0", "1", "10"))
    assert [spelling.label_of(token) for token in ("0", " 1", "10", "100", "01")] == ["0", "1", "10", None, None]


def test_a_server_is_asked_about_words_in_any_case() -> None:
    """Lower, capitalised and upper, each with and without a space before it; of a letter, itself alone."""
    asked = {text for text, _ in LabelSpelling(("yes", "No", "A")).texts()}
    assert asked == {before + word for before in ("", " ") for word in ("yes", "Yes", "YES", "no", "No", "NO", "A")}


LABELS = st.lists(st.text("ABab1Yes", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@given(LABELS)
def test_every_text_that_is_asked_about_spells_its_label(labels: list[str]) -> None:
    """What is asked of a server is what will be counted; no text twice; the plain labels first."""
    spelling = LabelSpelling(labels)
    texts = spelling.texts()
    assert [text for text, _ in texts[: len(labels)]] == labels
    assert len({text for text, _ in texts}) == len(texts)
    for text, label in texts:
        assert spelling.label_of(text) == label
