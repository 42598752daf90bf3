"""The agent that writes questions with a gap from the sentences of a text."""

import re
from collections import Counter
from dataclasses import dataclass

from pydantic import Field

from examples.agents.contract import Answer, Payload, Refusal
from examples.agents.documents import Material
from examples.agents.prose import sentences, terms, words

_SENTENCE_WORDS = range(5, 41)
_DISTRACTORS = 3


class AssessmentWish(Material):
    """A text, and how many questions to write at most."""

    questions: int = Field(5, ge=1, le=20)


@dataclass(frozen=True)
class _Gap:
    sentence: str
    answer: str


def generate_assessment(payload: Payload) -> Answer:
    """Leave a frequent term out of some sentences and offer other terms of the text beside it."""
    wish = AssessmentWish.model_validate(payload)
    text = wish.read()
    counts = terms(text)
    gaps = _gaps(text, counts)[: wish.questions]
    if not gaps or len(counts) <= _DISTRACTORS:
        raise Refusal("text: expected at least one sentence of five words and four different terms")
    return {
        "questions": [_question(gap, counts) for gap in gaps],
        "method": "cloze: a long and frequent term is left out of each sentence; distractors are "
        "other terms of the text, nearest in frequency and length",
    }


def _gaps(text: str, counts: Counter[str]) -> list[_Gap]:
    asked: set[str] = set()
    gaps = []
    for sentence in sentences(text):
        found = {word.lower() for word in words(sentence)}
        free = [word for word in found if word in counts and word not in asked]
        if len(words(sentence)) in _SENTENCE_WORDS and free:
            # A long word says more than a short one that is as frequent.
            answer = min(free, key=lambda word: (-counts[word] * len(word), word))
            asked.add(answer)
            gaps.append(_Gap(sentence, answer))
    return gaps


def _question(gap: _Gap, counts: Counter[str]) -> Answer:
    present = {word.lower() for word in words(gap.sentence)}
    others = [term for term in counts if term not in present] or [
        term for term in counts if term != gap.answer
    ]
    nearest = sorted(others, key=lambda term: _distance(term, gap.answer, counts))
    blank = re.compile(rf"(?<!\w){re.escape(gap.answer)}(?!\w)", re.IGNORECASE)
    return {
        "question": blank.sub("_____", gap.sentence),
        "options": sorted([gap.answer, *nearest[:_DISTRACTORS]]),
        "answer": gap.answer,
    }


def _distance(term: str, answer: str, counts: Counter[str]) -> tuple[int, int, str]:
    return abs(counts[term] - counts[answer]), abs(len(term) - len(answer)), term
