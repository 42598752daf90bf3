"""The configurations that the documentation shows, and the one that is shipped."""

from pathlib import Path

import yaml

from examples.agents import CATALOG
from orchestrator.config import Instance, Settings
from orchestrator.config_file import load
from orchestrator.models import LimitMode
from tests.unit.orchestrator.config_text import load_text

ROOT = Path(__file__).parents[3]

DOCUMENTED = """\
agent:
  name: "orchestration_agent"
  port: 8000
  host: "0.0.0.0"

routing_rules:
  - pattern: "upload_pdf"
    target_agent: "content_ingestion_agent"
    endpoint: "http://content-ingestion:8001/ingest"
    timeout: 300
    priority: 2

load_balancing:
  strategy: "round_robin"
  health_check_interval: 30

error_recovery:
  max_retries: 3
  retry_delay: 1
  backoff_multiplier: 2
  circuit_breaker_threshold: 5

message_queue:
  type: "rabbitmq"
  host: "localhost"
  port: 5672

monitoring:
  enable_metrics: true
  metrics_port: 9090
"""

WHOLE = """\
agent: {name: orchestration_agent, host: 127.0.0.1, port: 8000}
temporal: {address: embedded, namespace: default, embedded: {port: 7233, ui_port: 8233}}
agents:
  content_ingestion_agent:
    capabilities: [pdf, ingestion]
    instances: [{url: "http://127.0.0.1:8101", weight: 1}]
    health_check: {path: /health, interval: 30, timeout: 5}
    rate_limit: {rate: 100, burst: 20, mode: reject}       # a minute; mode reject | queue
    max_connections: 100
    idempotent: true
routing_rules:
  - {pattern: upload_pdf, target_agent: content_ingestion_agent, endpoint: /ingest, timeout: 300, priority: 2,
     dispatch: queued, fallback_agents: []}                # endpoint: a path on each instance, or a whole URL
load_balancing: {strategy: round_robin, health_check_interval: 30, max_connections_per_agent: 100}
priority_queue: {max_queue_size: 10000}
rate_limiting: {default_rate: 100, burst_size: 20, mode: reject, enabled: true}
error_recovery: {max_retries: 3, retry_delay: 1, backoff_multiplier: 2, circuit_breaker_threshold: 5,
                 circuit_breaker_timeout: 30, dead_letter_queue: true}
message_queue: {type: none, host: localhost, port: 5672}
callbacks: {secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, allow: []}
monitoring: {enable_metrics: true, metrics_port: 9090}
"""  # noqa: E501 - as it is documented

TUNING = """\
load_balancing:
  max_connections_per_agent: 100  # Increase for high load

priority_queue:
  max_queue_size: 10000  # Increase for larger backlog

rate_limiting:
  default_rate: 100  # Requests per minute
  burst_size: 20  # Burst capacity
"""

PATTERNS = {
    "upload_pdf": "content_ingestion_agent",
    "personalize_content": "personalization_agent",
    "build_knowledge_graph": "knowledge_graph_agent",
    "generate_assessment": "assessment_agent",
    "create_visual": "visual_generation_agent",
    "generate_audio": "audio_generation_agent",
    "translate_content": "translation_agent",
    "create_mindmap": "mindmap_agent",
    "apply_learning_science": "learning_science_agent",
    "track_analytics": "analytics_agent",
    "coordinate_realtime": "realtime_coordination_agent",
    "check_content_quality": "content_quality_agent",
    "run_local_ai": "local_ai_agent",
    "cache_data": "caching_agent",
    "manage_database": "database_management_agent",
    "check_security": "security_compliance_agent",
    "run_tests": "testing_qa_agent",
    "manage_infrastructure": "infrastructure_agent",
}


def shipped() -> Settings:
    """The configuration at the top of the project."""
    return load(ROOT / "config.yaml", {})


def test_the_documented_block_loads_unchanged(tmp_path: Path) -> None:
    """Its values arrive under the names and places that it gives them."""
    settings = load_text(tmp_path, DOCUMENTED)
    expected = ("0.0.0.0", 300.0, 2, 30.0, 3, "rabbitmq", 5672, 9090)  # noqa: S104 - documented
    actual = (
        settings.agent.host,
        settings.routing_rules[0].timeout,
        settings.routing_rules[0].priority,
        settings.load_balancing.health_check_interval,
        settings.error_recovery.max_retries,
        settings.message_queue.type,
        settings.message_queue.port,
        settings.monitoring.metrics_port,
    )
    assert expected == actual


def test_a_rule_with_a_whole_url_makes_its_agent(tmp_path: Path) -> None:
    """The agent has the one instance that the endpoint stands on."""
    agents = load_text(tmp_path, DOCUMENTED).agents
    expected = {"content_ingestion_agent": (Instance(url="http://content-ingestion:8001"),)}
    assert expected == {name: agent.instances for name, agent in agents.items()}


def test_rules_of_one_agent_share_their_instances(tmp_path: Path) -> None:
    """Two endpoints on one origin are one instance, another origin is a second."""
    text = "routing_rules:\n" + "".join(
        f"  - {{pattern: p{number}, target_agent: reader, endpoint: '{endpoint}'}}\n"
        for number, endpoint in enumerate(["http://h:1/a", "http://h:1/b", "http://h:2/a", "/c"])
    )
    agent = load_text(tmp_path, text).agents["reader"]
    assert ["http://h:1", "http://h:2"] == [each.url for each in agent.instances]


def test_instances_that_are_given_are_kept(tmp_path: Path) -> None:
    """A whole URL in a rule adds nothing to an agent with instances of its own."""
    text = (
        "agents: {reader: {instances: [{url: 'http://h:1'}]}}\n"
        "routing_rules: [{pattern: p, target_agent: reader, endpoint: 'http://h:2/a'}]\n"
    )
    agent = load_text(tmp_path, text).agents["reader"]
    assert ["http://h:1"] == [each.url for each in agent.instances]


def test_the_whole_shape_loads(tmp_path: Path) -> None:
    """Every documented key is understood."""
    settings = load_text(tmp_path, WHOLE)
    agent = settings.agents["content_ingestion_agent"]
    expected = (("pdf", "ingestion"), 100.0, 20, LimitMode.REJECT, 100, True)
    limit = agent.rate_limit
    actual = (
        agent.capabilities,
        limit.rate,
        limit.burst,
        limit.mode,
        agent.max_connections,
        agent.idempotent,
    )
    assert expected == actual


def test_the_tuning_block_is_the_default(tmp_path: Path) -> None:
    """The values that the tuning chapter names are those without any configuration."""
    assert load(None, {}) == load_text(tmp_path, TUNING)


def test_every_documented_pattern_is_routed() -> None:
    """The shipped rules lead from the 18 patterns to the 18 agents."""
    assert PATTERNS == {rule.pattern: rule.target_agent for rule in shipped().routing_rules}


def test_every_shipped_agent_has_an_instance() -> None:
    """Nothing but the agents of the rules is configured, each with one address."""
    expected = dict.fromkeys(PATTERNS.values(), 1)
    assert expected == {name: len(each.instances) for name, each in shipped().agents.items()}


def test_the_shipped_rules_fit_the_sample_agents() -> None:
    """Agent and path of each rule are those of the catalog."""
    expected = {pattern: (entry.agent, entry.path) for pattern, entry in CATALOG.items()}
    assert expected == {
        rule.pattern: (rule.target_agent, rule.endpoint) for rule in shipped().routing_rules
    }


def test_the_shipped_instances_are_the_sample_agents() -> None:
    """Each agent is called below its own name, wherever the sample agents listen."""
    settings = load(ROOT / "config.yaml", {"SAMPLE_AGENTS_URL": "http://10.0.0.7:99"})
    expected = {name: f"http://10.0.0.7:99/{name}" for name in PATTERNS.values()}
    assert expected == {name: each.instances[0].url for name, each in settings.agents.items()}


def test_the_shipped_recovery_is_the_documented_one() -> None:
    """Three retries, after one, two and four seconds."""
    recovery = shipped().error_recovery
    expected = (3, 1.0, 2.0)
    assert expected == (recovery.max_retries, recovery.retry_delay, recovery.backoff_multiplier)


def test_the_shipped_file_names_no_key_twice() -> None:
    """A plain YAML reader sees the same blocks as ours."""
    plain = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert set(plain) == shipped().model_fields_set
