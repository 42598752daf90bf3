"""Prose taken apart."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.agents.prose import (
    Section,
    outline,
    ranked,
    sentences,
    syllables,
    terms,
    words,
)


def test_words_are_letters() -> None:
    """Numbers are no words; apostrophes and hyphens belong to them."""
    expected = ["It's", "a", "well-known", "café"]
    assert expected == words("It's 1 a well-known café.")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("leaf", 1), ("water", 2), ("make", 1), ("little", 2), ("tree", 1), ("hmm", 1)],
)
def test_syllables_follow_vowel_groups(word: str, expected: int) -> None:
    """Groups of vowels count, a silent final e does not."""
    assert expected == syllables(word)


def test_outline_knows_markdown() -> None:
    """The number of # is the level."""
    expected = [Section("Food", 1, ""), Section("Leaf", 2, "It is green.")]
    assert expected == outline("# Food\n\n## Leaf\n\nIt is green.")


def test_outline_knows_plain_headings() -> None:
    """A short line between sentences is a heading; a wrapped line is not."""
    text = "Plants\nA leaf is\nGreen and thin.\nRoots\nThey drink."
    headings = [(section.heading, section.level) for section in outline(text)]
    expected = [("Plants", 1), ("Roots", 2)]
    assert expected == headings


def test_sentences_run_over_lines() -> None:
    """A line break does not end a sentence, a full stop does."""
    expected = ["A leaf is green.", "Why?"]
    assert expected == sentences("A leaf is\ngreen. Why?")


def test_plural_counts_as_its_singular() -> None:
    """Only a plural whose singular is in the text is folded."""
    expected = {"river": 2, "stars": 1}
    assert expected == terms("Rivers and the river. Stars!")


def test_ranked_is_steady() -> None:
    """Equals are in alphabetical order."""
    expected = [("b", 2), ("a", 1)]
    assert expected == ranked(Counter("cabb"), 2)


@given(st.text())
def test_any_text_can_be_taken_apart(text: str) -> None:
    """No text is an error, and no word is made up."""
    known = {word.lower() for word in words(text)}
    assert terms(text).keys() <= known | {word.removesuffix("s") for word in known}


@given(st.lists(st.sampled_from(["Rain falls.", "Why?", "The sun is warm!"]), min_size=1))
def test_joined_sentences_are_found_again(written: list[str]) -> None:
    """Splitting undoes joining."""
    assert written == sentences(" ".join(written))
