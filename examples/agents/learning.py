"""The agents that fit learning to a person: a personal lesson, and a schedule of repetitions."""

from collections import Counter
from datetime import date, timedelta
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from examples.agents.contract import Answer, Payload, Wish
from examples.agents.documents import Lesson, lesson, lessons
from examples.agents.prose import Section, outline, ranked, sentences, terms, words

_WORDS_PER_MINUTE = 200
_SENTENCES_BY_LEVEL = {"beginner": 2, "intermediate": 3, "advanced": None}
_KEY_TERMS = 5
_FORECAST = 5
_PASSED = 3
# This grade leaves the ease as it is, so a forecast neither praises nor blames.
_NEUTRAL_GRADE = 4
_LEAST_EASE = 1.3
_FIRST_EASE = 2.5
_LONGEST_GAP_DAYS = 3650
_LAST_START = date(2200, 1, 1)


class PersonalWish(Wish):
    """Who learns which content, and what is known of the learner."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    user_id: str = Field(min_length=1, max_length=200)
    content_id: str
    level: Literal["beginner", "intermediate", "advanced"] = "intermediate"
    interests: list[Annotated[str, Field(max_length=100)]] = Field(default=[], max_length=20)


def personalize(payload: Payload) -> Answer:
    """Cut a lesson to the learner's level and put the sections of interest first."""
    wish = PersonalWish.model_validate(payload)
    chosen = lesson(wish.content_id)
    interests = {interest.lower() for interest in wish.interests}
    sections = [section for section in outline(chosen.text) if section.body]
    sections.sort(key=lambda section: -_interest(section, interests))
    limit = _SENTENCES_BY_LEVEL[wish.level]
    parts = [
        {"heading": section.heading, "text": " ".join(sentences(section.body)[:limit])}
        for section in sections
    ]
    length = sum(len(words(part["text"])) for part in parts)
    return {
        "user_id": wish.user_id,
        "content_id": chosen.content_id,
        "title": chosen.title,
        "subject": chosen.subject,
        "level": wish.level,
        "sections": parts,
        "key_terms": [term for term, _ in ranked(terms(chosen.text), _KEY_TERMS)],
        "reading_minutes": round(length / _WORDS_PER_MINUTE, 1),
        "next_content_id": _nearest(chosen),
        "method": "first sentences of each section by level, sections that name an interest first; "
        "the next lesson shares most terms",
    }


def _interest(section: Section, interests: set[str]) -> int:
    found = Counter(word.lower() for word in words(f"{section.heading} {section.body}"))
    return sum(found[interest] for interest in interests)


def _nearest(chosen: Lesson) -> str:
    mine = terms(chosen.text).keys()
    others = [other for other in lessons().values() if other != chosen]
    best = min(others, key=lambda other: (-len(mine & terms(other.text).keys()), other.content_id))
    return best.content_id


class Item(Wish):
    """Something to remember, with the grades of its reviews so far, from 0 (blackout) to 5."""

    id: str = Field(min_length=1, max_length=200)
    grades: list[Annotated[int, Field(ge=0, le=5)]] = Field(default=[], max_length=100)


class ScheduleWish(Wish):
    """The items to schedule, and the day of their last review."""

    items: list[Item] = Field(min_length=1, max_length=100)
    start: Annotated[date, Field(le=_LAST_START)] | None = None


def schedule_reviews(payload: Payload) -> Answer:
    """Plan the next repetitions of each item, on the assumption that each is recalled."""
    wish = ScheduleWish.model_validate(payload)
    return {
        "schedule": [_plan(item, wish.start) for item in wish.items],
        "method": "SM-2 (P. A. Wozniak, 1990): intervals of 1 and 6 days, then times the ease",
    }


def _plan(item: Item, start: date | None) -> Answer:
    streak, ease, gap = 0, _FIRST_EASE, 0
    for grade in item.grades:
        streak, ease, gap = sm2(grade, streak, ease, gap)
    plan: Answer = {"id": item.id, "ease": round(ease, 2)}
    gaps = [gap] if item.grades else []
    while len(gaps) < _FORECAST:
        streak, ease, gap = sm2(_NEUTRAL_GRADE, streak, ease, gap)
        gaps.append(gap)
    plan["days"] = list(accumulate(gaps))
    if start is not None:
        plan["dates"] = [(start + timedelta(days=day)).isoformat() for day in plan["days"]]
    return plan


def sm2(grade: int, streak: int, ease: float, gap: int) -> tuple[int, float, int]:
    """Take one review into account, by P. A. Wozniak's algorithm SM-2 of 1990.

    Args:
        grade: How well the item was recalled, 0 to 5.
        streak: Recalls in a row before this review.
        ease: The item's ease, at least 1.3.
        gap: Days from the review before to this one.

    Returns:
        The streak, the ease and the days to the next review, at most ten years.
    """
    if grade < _PASSED:
        return 0, ease, 1
    miss = 5 - grade
    easier = max(_LEAST_EASE, ease + 0.1 - miss * (0.08 + miss * 0.02))
    first_gaps = {0: 1, 1: 6}
    return streak + 1, easier, min(_LONGEST_GAP_DAYS, first_gaps.get(streak) or round(gap * easier))
