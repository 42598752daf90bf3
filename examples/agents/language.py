"""The agents that handle language: a glossary translation and a local text classifier."""

import math
import re
from collections import Counter
from functools import cache
from typing import Literal

from pydantic import AliasChoices, Field

from examples.agents.contract import Answer, Payload, Refusal
from examples.agents.documents import Material, glossary, lessons
from examples.agents.prose import terms, words

_LANGUAGES = {"de": "german", "es": "spanish"}
_WORD = re.compile(r"[^\W\d_]+")
_MAX_UNKNOWN = 50


class TranslationWish(Material):
    """An English text and the language to put its words into."""

    target: Literal["de", "es"] = Field(
        validation_alias=AliasChoices("target", "target_language", "language"),
    )


def translate(payload: Payload) -> Answer:
    """Replace the English words that a small glossary knows, and say which it does not know."""
    wish = TranslationWish.model_validate(payload)
    text = wish.read()
    entries = glossary(_LANGUAGES[wish.target])
    found = [word.lower() for word in _WORD.findall(text)]
    unknown = [word for word in found if word not in entries]
    return {
        "target": wish.target,
        "text": _WORD.sub(lambda word: _replace(word[0], entries), text),
        "words": len(found),
        "known_words": len(found) - len(unknown),
        "unknown_words": len(unknown),
        "unknown": list(dict.fromkeys(unknown))[:_MAX_UNKNOWN],
        "method": f"word by word from a glossary of {len(entries)} words; unknown words stay "
        "English and no grammar is applied",
    }


def _replace(word: str, entries: dict[str, str]) -> str:
    known = entries.get(word.lower())
    if known is None:
        return word
    return known[:1].upper() + known[1:] if word[:1].isupper() else known


def classify(payload: Payload) -> Answer:
    """Guess which lesson's subject a text is about."""
    text = Material.model_validate(payload).read()
    if not words(text):
        raise Refusal("text: expected at least one word")
    chances = _posterior(terms(text))
    subject = max(chances, key=lambda label: (chances[label], label))
    known = sum(count for term, count in terms(text).items() if term in _vocabulary())
    return {
        "subject": subject,
        "probabilities": {label: round(chance, 4) for label, chance in chances.items()},
        "known_terms": known,
        "method": "multinomial naive Bayes with add-one smoothing, trained on the shipped lessons",
    }


@cache
def _model() -> dict[str, Counter[str]]:
    return {lesson.subject: terms(lesson.text) for lesson in lessons().values()}


@cache
def _vocabulary() -> frozenset[str]:
    return frozenset(term for counts in _model().values() for term in counts)


def _posterior(found: Counter[str]) -> dict[str, float]:
    size = len(_vocabulary())
    scores = {
        subject: sum(
            count * math.log((counts[term] + 1) / (counts.total() + size))
            for term, count in found.items()
            if term in _vocabulary()
        )
        for subject, counts in _model().items()
    }
    # Scores are logarithms of very small numbers; relative to the best one they do not vanish.
    best = max(scores.values())
    weights = {subject: math.exp(score - best) for subject, score in scores.items()}
    return {subject: weight / sum(weights.values()) for subject, weight in weights.items()}
