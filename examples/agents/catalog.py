"""Every sample agent: the pattern that leads to it, its name, its path, its work and an example."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from examples.agents.analytics import track_analytics
from examples.agents.assessment import generate_assessment
from examples.agents.checks import run_tests
from examples.agents.contract import Answer, Payload
from examples.agents.coordination import Rooms
from examples.agents.host import inspect_host
from examples.agents.ingestion import ingest
from examples.agents.language import classify, translate
from examples.agents.learning import personalize, schedule_reviews
from examples.agents.media import create_visual, generate_audio
from examples.agents.quality import check_content_quality
from examples.agents.security import scan
from examples.agents.storage import Cache, query_lessons
from examples.agents.understanding import build_knowledge_graph, create_mindmap


class Entry(NamedTuple):
    """One agent.

    Attributes:
        agent: Its name, which is also the prefix of its paths.
        path: The path of its action, below that prefix.
        answer: Its work.
        example: A payload that it answers.
        in_thread: Whether the work may take long enough to hold other requests up. Agents that
            keep state stay on the event loop, where nothing else runs between two of their steps.
    """

    agent: str
    path: str
    answer: Callable[[Payload], Answer]
    example: Payload
    in_thread: bool = True


CATALOG: Mapping[str, Entry] = MappingProxyType(
    {
        "upload_pdf": Entry("content_ingestion_agent", "/ingest", ingest, {"file": "document.pdf"}),
        "personalize_content": Entry(
            "personalization_agent",
            "/personalize",
            personalize,
            {"user_id": "12345", "content_id": "lesson-101"},
        ),
        "build_knowledge_graph": Entry(
            "knowledge_graph_agent", "/build", build_knowledge_graph, {"file": "document.pdf"}
        ),
        "generate_assessment": Entry(
            "assessment_agent",
            "/generate",
            generate_assessment,
            {"content_id": "lesson-102", "questions": 3},
        ),
        "create_visual": Entry(
            "visual_generation_agent",
            "/create",
            create_visual,
            {"title": "Rain in mm", "data": {"May": 61, "June": 74.5, "July": 80}},
        ),
        "generate_audio": Entry(
            "audio_generation_agent",
            "/generate",
            generate_audio,
            {"text": "Rain falls, and the water returns to the sea."},
        ),
        "translate_content": Entry(
            "translation_agent",
            "/translate",
            translate,
            {"text": "The leaf makes sugar in light.", "target": "de"},
        ),
        "create_mindmap": Entry(
            "mindmap_agent", "/create", create_mindmap, {"content_id": "lesson-103"}
        ),
        "apply_learning_science": Entry(
            "learning_science_agent",
            "/schedule",
            schedule_reviews,
            {"items": [{"id": "chlorophyll", "grades": [5, 3]}], "start": "2026-01-05"},
        ),
        "track_analytics": Entry(
            "analytics_agent",
            "/track",
            track_analytics,
            {
                "events": [
                    {"name": "quiz_finished", "user_id": "ada", "value": 80},
                    {"name": "quiz_finished", "user_id": "max", "value": 60},
                    {"name": "lesson_opened", "user_id": "ada", "at": "2026-01-05T09:30:00Z"},
                ],
            },
        ),
        "coordinate_realtime": Entry(
            "realtime_coordination_agent",
            "/coordinate",
            Rooms().coordinate,
            {"action": "join", "room": "biology", "user_id": "ada"},
            in_thread=False,
        ),
        "check_content_quality": Entry(
            "content_quality_agent",
            "/check",
            check_content_quality,
            {"text": "Rain falls from the the clouds. Then the rivers carry it to the sea."},
        ),
        "run_local_ai": Entry(
            "local_ai_agent", "/classify", classify, {"text": "The rain fills the rivers."}
        ),
        "cache_data": Entry(
            "caching_agent",
            "/cache",
            Cache().handle,
            {"action": "put", "key": "progress/ada", "value": {"lesson": 2}, "ttl": 60},
            in_thread=False,
        ),
        "manage_database": Entry(
            "database_management_agent",
            "/query",
            query_lessons,
            {
                "sql": "SELECT id, title FROM lessons WHERE subject = ?",
                "parameters": ["biology"],
            },
        ),
        "check_security": Entry(
            "security_compliance_agent",
            "/scan",
            scan,
            {"text": "Write to ada@example.com about card 4111 1111 1111 1111."},
        ),
        "run_tests": Entry(
            "testing_qa_agent",
            "/run",
            run_tests,
            {"assertions": [{"actual": [1, 2], "operator": "contains", "expected": 2}]},
            in_thread=False,
        ),
        "manage_infrastructure": Entry(
            "infrastructure_agent", "/inspect", inspect_host, {}, in_thread=False
        ),
    },
)
