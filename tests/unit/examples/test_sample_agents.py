"""What each sample agent computes."""

import base64
import io
import wave
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from examples.agents.analytics import track_analytics
from examples.agents.assessment import generate_assessment
from examples.agents.checks import run_tests
from examples.agents.contract import Refusal
from examples.agents.coordination import Rooms, merge
from examples.agents.host import inspect_host
from examples.agents.language import classify, translate
from examples.agents.learning import personalize, schedule_reviews, sm2
from examples.agents.media import create_visual, generate_audio
from examples.agents.quality import check_content_quality, readability
from examples.agents.storage import Cache, query_lessons
from examples.agents.understanding import build_knowledge_graph, create_mindmap

VECTORS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_graph_weighs_shared_sentences() -> None:
    """An edge counts the sentences that hold both terms."""
    graph = build_knowledge_graph({"text": "Rain feeds rivers. Rain fills rivers.", "max_terms": 2})
    expected = [{"source": "rain", "target": "rivers", "weight": 2}]
    assert expected == graph["edges"]


def test_edges_join_nodes() -> None:
    """No edge ends outside the graph."""
    graph = build_knowledge_graph({"file": "document.pdf"})
    ends = {edge[end] for edge in graph["edges"] for end in ("source", "target")}
    assert ends <= {node["id"] for node in graph["nodes"]}


def test_mindmap_follows_headings() -> None:
    """The title is the root and the headings are its branches."""
    tree = create_mindmap({"content_id": "lesson-104"})["tree"]
    branches = [child["label"] for child in tree["children"]]
    expected = ("Fractions", ["Parts of a whole", "Equal fractions", "Adding fractions"])
    assert expected == (tree["label"], branches)


def test_mindmap_without_headings_has_its_main_term_as_root() -> None:
    """Plain sentences branch by their terms."""
    tree = create_mindmap({"text": "Rain falls on rivers. Rivers meet the sea."})["tree"]
    expected = "rivers"
    assert expected == tree["label"]


def test_mindmap_of_no_terms_is_refused() -> None:
    """There is no tree of nothing."""
    with pytest.raises(Refusal):
        create_mindmap({"text": "1 2 3"})


def test_question_can_be_undone() -> None:
    """The answer is among the options, and in the gap it gives a sentence of the text."""
    questions = generate_assessment({"content_id": "lesson-101", "questions": 20})["questions"]
    assert questions
    assert all(q["answer"] in q["options"] and "_____" in q["question"] for q in questions)


def test_questions_have_four_different_options() -> None:
    """No distractor is the answer."""
    questions = generate_assessment({"file": "document.pdf"})["questions"]
    assert {4} == {len(set(question["options"])) for question in questions}


def test_assessment_of_a_word_is_refused() -> None:
    """Too little text makes no question."""
    with pytest.raises(Refusal, match="four different terms"):
        generate_assessment({"text": "Rain."})


def test_readability_is_the_published_formula() -> None:
    """Ten words of one syllable in one sentence score as computed by hand."""
    expected = {"flesch_reading_ease": 112.09, "flesch_kincaid_grade": 0.11}
    assert expected == readability(1, 10, 10)


def test_quality_finds_doubled_words() -> None:
    """A word twice in a row is reported once, in lower case."""
    expected = ["the"]
    assert expected == check_content_quality({"text": "The the end."})["repeated_words"]


def test_quality_of_no_words_is_refused() -> None:
    """A text without words has no score."""
    with pytest.raises(Refusal):
        check_content_quality({"text": "..."})


def test_level_decides_how_much_is_read() -> None:
    """A beginner gets less of each section than an advanced learner."""
    base = {"user_id": "1", "content_id": "lesson-101"}
    short, long = (personalize(base | {"level": level}) for level in ("beginner", "advanced"))
    assert len(short["sections"][0]["text"]) < len(long["sections"][0]["text"])


def test_interest_comes_first() -> None:
    """The section that names an interest leads."""
    answer = personalize({"user_id": 7, "content_id": "lesson-101", "interests": ["Starch"]})
    expected = "Where the sugar goes"
    assert expected == answer["sections"][0]["heading"]


def test_forecast_follows_sm2() -> None:
    """A new item comes back after 1 day, 6 more days and then by its ease of 2.5."""
    plan = schedule_reviews({"items": [{"id": "leaf"}]})["schedule"][0]
    expected = [1, 7, 22, 60, 155]
    assert expected == plan["days"]


def test_failed_review_starts_again() -> None:
    """A grade below 3 brings the item back tomorrow with its ease unchanged."""
    expected = (0, 2.1, 1)
    assert expected == sm2(2, 5, 2.1, 40)


@given(st.integers(0, 5), st.integers(0, 50), st.floats(1.3, 5), st.integers(1, 3650))
def test_sm2_stays_in_bounds(grade: int, streak: int, ease: float, gap: int) -> None:
    """The ease never falls below 1.3 and no gap is longer than ten years."""
    _, easier, days = sm2(grade, streak, ease, gap)
    assert easier >= 1.3
    assert 1 <= days <= 3650


def test_dates_count_from_the_start() -> None:
    """With a day to start from the plan has dates."""
    plan = schedule_reviews({"items": [{"id": "x"}], "start": "2026-01-05"})["schedule"][0]
    expected = "2026-01-06"
    assert expected == plan["dates"][0]


def test_chart_scales_to_the_largest_bar() -> None:
    """The svg parses, and bars are in proportion."""
    svg = ET.fromstring(create_visual({"data": {"<a>": 1, "b": 2}})["svg"])  # noqa: S314 - our own
    widths = [int(bar.attrib["width"]) for bar in svg if bar.tag.endswith("rect")]
    expected = [140, 280]
    assert expected == widths


def test_chart_of_a_text_counts_terms() -> None:
    """Without numbers the terms of the text are drawn."""
    expected = {"rain": 2.0}
    assert expected == create_visual({"text": "Rain, rain."})["bars"]


def test_chart_of_no_terms_is_refused() -> None:
    """There is no chart without bars."""
    with pytest.raises(Refusal):
        create_visual({"text": "the"})


def test_audio_lasts_as_long_as_its_timing() -> None:
    """The WAV file is valid and as long as the answer says."""
    answer = generate_audio({"text": "Rain falls into the sea."})
    with wave.open(io.BytesIO(base64.b64decode(answer["audio_base64"]))) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    assert answer["seconds"] == pytest.approx(seconds, abs=0.01)


def test_audio_of_no_words_is_refused() -> None:
    """Numbers alone make no tones."""
    with pytest.raises(Refusal):
        generate_audio({"text": "42"})


def test_translation_owns_up_to_unknown_words() -> None:
    """Known words are replaced in their case, others stay and are counted."""
    answer = translate({"text": "Water, sun and Zebra.", "target_language": "es"})
    expected = ("Agua, sol y Zebra.", 3, ["zebra"])
    assert expected == (answer["text"], answer["known_words"], answer["unknown"])


def test_classifier_tells_the_lessons_apart() -> None:
    """A sentence with the words of a subject is put there."""
    expected = "physics"
    assert expected == classify({"text": "A lever lifts a load with less force."})["subject"]


@given(st.text(min_size=1).filter(lambda text: any(c.isalpha() for c in text)))
def test_probabilities_add_up(text: str) -> None:
    """Whatever the text, the subjects share one whole."""
    expected = 1
    assert expected == pytest.approx(
        sum(classify({"text": text})["probabilities"].values()), abs=0.001
    )


def test_classifier_refuses_numbers() -> None:
    """A text without words has no subject."""
    with pytest.raises(Refusal):
        classify({"text": "42"})


def test_analytics_summarises_by_name() -> None:
    """Values of one kind of event are summed up; users count once."""
    events = [{"event": "quiz", "user_id": 1, "value": v} for v in (1, 2, 6)]
    expected = {"events": 3, "users": 1, "sum": 9, "mean": 3, "median": 2, "min": 1, "max": 6}
    assert expected == track_analytics({"events": events})["by_name"]["quiz"]


def test_analytics_counts_days_in_utc() -> None:
    """An event late in the evening of New York is on the next day in UTC."""
    events = [{"name": "open", "timestamp": "2026-01-05T22:00:00-05:00"}]
    expected = {"2026-01-06": 1}
    assert expected == track_analytics({"events": events})["by_day"]


def test_room_knows_who_joined_and_left() -> None:
    """Joining twice is joining once."""
    rooms = Rooms()
    for action, user in [("join", "ada"), ("join", "max"), ("join", "max"), ("leave", "ada")]:
        rooms.coordinate({"action": action, "room": "r", "user_id": user})
    expected = ["max"]
    assert expected == rooms.coordinate({"action": "members", "room": "r"})["members"]


def test_full_room_refuses() -> None:
    """A room has a bound."""
    rooms = Rooms()
    for number in range(200):
        rooms.coordinate({"action": "join", "room": "r", "user_id": str(number)})
    with pytest.raises(Refusal, match="full"):
        rooms.coordinate({"action": "join", "room": "r", "user_id": "200"})


def test_quiet_room_makes_place() -> None:
    """Over the bound of rooms the one joined longest ago is gone."""
    rooms = Rooms()
    for number in range(101):
        rooms.coordinate({"action": "join", "room": str(number), "user_id": "ada"})
    assert not rooms.coordinate({"action": "members", "room": "0"})["members"]


def test_unknown_action_is_refused() -> None:
    """The refusal names the actions there are."""
    with pytest.raises(ValidationError, match="merge"):
        Rooms().coordinate({"action": "dance"})


@given(VECTORS, VECTORS, VECTORS)
def test_merge_needs_no_order(a: dict[str, int], b: dict[str, int], c: dict[str, int]) -> None:
    """Vectors merge to the same in any order and grouping."""
    assert merge([a, b, c]) == merge([merge([c, b]), a])


def test_cache_forgets_after_the_ttl() -> None:
    """A value is there before its time is over, and not after."""
    clock = Clock()
    cache = Cache(clock)
    cache.handle({"action": "put", "key": "k", "value": None, "ttl": 10})
    hits = []
    for clock.now in (9.9, 10.0):
        hits.append(cache.handle({"action": "get", "key": "k"})["hit"])
    expected = [True, False]
    assert expected == hits


def test_cache_deletes() -> None:
    """Only the first deletion finds something."""
    cache = Cache()
    cache.handle({"action": "put", "key": "k", "value": [1]})
    deleted = [cache.handle({"action": "delete", "key": "k"})["deleted"] for _ in range(2)]
    expected = [True, False]
    assert expected == deleted


def test_cache_drops_the_entry_unused_for_longest() -> None:
    """A full cache keeps what was read."""
    cache = Cache()
    for number in range(1000):
        cache.handle({"action": "put", "key": str(number), "value": number})
    cache.handle({"action": "get", "key": "0"})
    cache.handle({"action": "put", "key": "new", "value": 1})
    hits = [cache.handle({"action": "get", "key": key})["hit"] for key in ("0", "1")]
    expected = [True, False]
    assert expected == hits


def test_cache_refuses_a_large_value() -> None:
    """Values have a bound."""
    with pytest.raises(Refusal, match="65536"):
        Cache().handle({"action": "put", "key": "k", "value": "x" * 70_000})


def test_query_takes_parameters() -> None:
    """A parameter is data, never SQL."""
    sql = "SELECT count(*) AS n FROM sections WHERE lesson_id = ?"
    answer = query_lessons({"sql": sql, "parameters": ["lesson-102"]})
    expected = (["n"], [[3]])
    assert expected == (answer["columns"], answer["rows"])


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE lessons",
        "INSERT INTO lessons VALUES (1, 2, 3, 4)",
        "PRAGMA database_list",
        "ATTACH 'x.db' AS x",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM lessons",
        "SELECT length(zeroblob(100000000))",
        "SELECT count(*) FROM sections, sections, sections, sections, sections, sections",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
        "SELECT ?",
    ],
)
def test_query_only_reads_a_little(sql: str) -> None:
    """Writing, attaching and endless queries are refused."""
    with pytest.raises(Refusal, match="expected one short SELECT"):
        query_lessons({"sql": sql})


def test_query_answers_json() -> None:
    """Bytes are in hexadecimal, and infinity is null."""
    expected = [["ff", None]]
    assert expected == query_lessons({"sql": "SELECT x'ff', 1e999"})["rows"]


def test_query_cuts_long_answers() -> None:
    """More rows than the bound are cut off, and the answer says so."""
    answer = query_lessons({"sql": "SELECT 1 FROM sections, sections AS again"})
    expected = (100, True)
    assert expected == (len(answer["rows"]), answer["truncated"])


@pytest.mark.parametrize(
    ("operator", "actual", "expected", "passed"),
    [
        ("equals", {"a": 1}, {"a": 1}, True),
        ("differs", 1, 1, False),
        ("contains", "leaf", "ea", True),
        ("less_than", 1, 2, True),
        ("greater_than", 1, 2, False),
        ("length", [1, 2], 2, True),
        ("less_than", 1, "2", False),
        ("length", 5, 1, False),
    ],
)
def test_assertion_holds_or_not(operator: str, actual: Any, expected: Any, *, passed: bool) -> None:
    """Each operator compares; what cannot be compared fails."""
    assertion = {"operator": operator, "actual": actual, "expected": expected}
    assert passed == run_tests({"assertions": [assertion]})["results"][0]["passed"]


def test_host_tells_what_is_asked() -> None:
    """Facts can be chosen."""
    assert {"disk", "load", "method"} == inspect_host({"facts": ["disk", "load"]}).keys()


def test_host_facts_are_real() -> None:
    """A disk has no more free bytes than bytes."""
    disk = inspect_host({})["disk"]
    assert 0 <= disk["free_bytes"] <= disk["total_bytes"]
