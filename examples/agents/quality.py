"""The agent that measures how readable a text is."""

from itertools import pairwise

from examples.agents.contract import Answer, Payload, Refusal
from examples.agents.documents import Material
from examples.agents.prose import sentences, syllables, words

_LONG_SENTENCE_WORDS = 25


def check_content_quality(payload: Payload) -> Answer:
    """Score a text by two published formulas and list what an editor would look at first."""
    found = sentences(Material.model_validate(payload).read())
    if not found:
        raise Refusal("text: expected at least one sentence with words")
    all_words = [word for sentence in found for word in words(sentence)]
    lengths = [len(words(sentence)) for sentence in found]
    long = [sentence for sentence in found if len(words(sentence)) > _LONG_SENTENCE_WORDS]
    return {
        "sentences": len(found),
        "words": len(all_words),
        "words_per_sentence": round(len(all_words) / len(found), 2),
        "longest_sentence_words": max(lengths),
        "long_sentences": long,
        "repeated_words": _repeated(found),
        **readability(len(found), len(all_words), sum(map(syllables, all_words))),
        "method": "reading ease: Flesch 1948; grade: Kincaid and others 1975; "
        "syllables are estimated from groups of vowels",
    }


def readability(sentence_count: int, word_count: int, syllable_count: int) -> dict[str, float]:
    """Compute two scores of English prose.

    Args:
        sentence_count: Sentences, at least 1.
        word_count: Words, at least 1.
        syllable_count: Syllables of all words.

    Returns:
        ``flesch_reading_ease`` (higher is easier; R. Flesch, "A new readability yardstick", 1948)
        and ``flesch_kincaid_grade`` (a US school grade; J. P. Kincaid and others, Research Branch
        Report 8-75, 1975).
    """
    length, weight = word_count / sentence_count, syllable_count / word_count
    return {
        "flesch_reading_ease": round(206.835 - 1.015 * length - 84.6 * weight, 2),
        "flesch_kincaid_grade": round(0.39 * length + 11.8 * weight - 15.59, 2),
    }


def _repeated(found: list[str]) -> list[str]:
    doubles = (
        first.lower()
        for sentence in found
        for first, second in pairwise(words(sentence))
        if first.lower() == second.lower()
    )
    return sorted(set(doubles))
