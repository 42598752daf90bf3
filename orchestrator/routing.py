"""Which agent serves a task: exact patterns, then globs, then regexes, then capabilities.

Pure: compile the settings once, then plan each request without I/O.
"""

import difflib
import fnmatch
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config import ErrorRecovery, Instance, Match, Rule, Settings
from orchestrator.endpoints import origin, path_of
from orchestrator.errors import UnknownPattern
from orchestrator.models import Dispatch, LateRule, LimitMode, Plan, RetryPlan, Route, TaskRequest
from orchestrator.values import MAX_TIMEOUT_SECONDS

_REGEX_MARKS = re.compile(r"[\^$()|+{}\\]|\.\*|\.\?")
_GLOB_MARKS = re.compile(r"[*?\[]")
_GLOB_LITERAL = re.compile(r"\[[^\]]*\]|[*?]|(?P<literal>.)", re.DOTALL)
_REGEX_LITERAL = re.compile(
    r"\\[a-zA-Z0-9]|\[[^\]]*\]|\{[^}]*\}|(?P<literal>\\.|[^\\\[\].^$*+?{}|()])", re.DOTALL
)
CLOSEST_PATTERNS = 3
_LATE_KEYS = set(LateRule.model_fields)

WORKFLOW_QUEUE = "orchestrator"
WORKFLOW_TYPE = "OrchestrateTask"
AWAIT_ANSWER, POLL_ANSWER = "await_answer", "poll_answer"
"""The activities that wait for late answers."""
_AGENT_QUEUES = "agent."


def agent_queue(agent: str) -> str:
    """The task queue that an agent's calls wait in."""
    return _AGENT_QUEUES + agent


def agent_of(queue: str) -> str:
    """The agent whose calls wait in a task queue."""
    return queue.removeprefix(_AGENT_QUEUES)


def kind_of(pattern: str, match: Match = Match.AUTO) -> Match:
    """How a rule's pattern is understood.

    ``auto``: a regex if it has any of ``^ $ ( ) | + { } \\`` or ``.*`` or ``.?``; else a glob if it
    has ``* ?`` or ``[``; else exact.
    """
    if match is not Match.AUTO:
        return match
    if _REGEX_MARKS.search(pattern):
        return Match.REGEX
    return Match.GLOB if _GLOB_MARKS.search(pattern) else Match.EXACT


def pattern_problem(pattern: str, match: Match = Match.AUTO) -> str | None:
    """Why a pattern cannot be used, or None."""
    if kind_of(pattern, match) is not Match.REGEX:
        return None
    try:
        _compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"found '{pattern}'; allowed: a regular expression, and this one is not: {error}"
    return None


def _compiled(source: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        # What `[[` or `&&` in a set will mean one day is no concern of who starts the service.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(source)


@dataclass(frozen=True)
class _Wildcard:
    """A compiled glob or regex; it must match the whole of a task's pattern."""

    kind: Match
    expression: re.Pattern[str]
    rule: Rule


class Routes:
    """The compiled routing rules and capabilities of a configuration."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._agents = settings.agents
        self._recovery = settings.error_recovery
        self._retry = retry_plan(settings.error_recovery)
        self._exact: dict[str, Rule] = {}
        wildcards: list[_Wildcard] = []
        for rule in settings.routing_rules:
            kind = kind_of(rule.pattern, rule.match)
            if kind is Match.EXACT:
                self._exact.setdefault(rule.pattern, rule)
            else:
                source = fnmatch.translate(rule.pattern) if kind is Match.GLOB else rule.pattern
                wildcards.append(_Wildcard(kind, _compiled(source), rule))
        # Sorting is stable: equals keep the order of the file.
        self._wildcards = sorted(
            wildcards,
            key=lambda each: (
                each.kind is Match.REGEX,
                -specificity(each.rule.pattern, each.kind),
            ),
        )
        self._patterns = tuple(rule.pattern for rule in settings.routing_rules)
        self._by_agent = _rule_per_agent(settings)

    def plan(self, request: TaskRequest) -> Plan:
        """Resolve a request's route.

        Raises:
            UnknownPattern: neither a pattern nor the capabilities match.
        """
        rule, chosen_by = self._choose(request)
        deadline = request.timeout or max(
            self._recovery.task_timeout,
            min(
                self._longest_course(rule.timeout + (rule.answer_timeout or 0)),
                MAX_TIMEOUT_SECONDS,
            ),
        )
        route = self._route(rule.target_agent, rule)
        metered = self.is_metered(rule.target_agent)
        # Other calls pass by the queue that meters them, and may be made again after a crash.
        free = route.idempotent and not metered
        return Plan(
            **dict(route),
            dispatch=rule.dispatch if free else Dispatch.QUEUED,
            attempt_timeout=rule.timeout,
            deadline=deadline,
            priority=request.priority or rule.priority,
            retry=self._retry,
            chosen_by=chosen_by,
            **self._further(rule, request),
        )

    def is_metered(self, agent: str) -> bool:
        """Whether the file has the agent's queue pace its calls."""
        limit = self.settings.rate_limit(agent)
        return limit is not None and limit.mode is LimitMode.QUEUE

    def _route(self, agent: str, rule: Rule) -> Route:
        return Route(
            agent=agent,
            endpoint=_endpoint(rule, agent, self._agents[agent].instances),
            task_queue=agent_queue(agent),
            idempotent=self._agents[agent].idempotent,
        )

    def _further(self, rule: Rule, request: TaskRequest) -> dict[str, Any]:
        """What most plans do without, so that it does not travel with them."""
        further: dict[str, Any] = {}
        if rule.fallback_agents:
            further["fallbacks"] = tuple(self._route(name, rule) for name in rule.fallback_agents)
        if late := {name: getattr(rule, name) for name in _LATE_KEYS & rule.model_fields_set}:
            further["late"] = LateRule(**late)
        if weight := self.settings.priority_queue.tenant_weights.get(request.tenant):
            further["fairness_weight"] = weight
        if self.settings.message_queue.sends_events:
            further["events"] = True
        if self._recovery.dead_letter_queue:
            further["dead_letter"] = True
            if expires := self.settings.dead_letters.expire_after:
                further["dead_letter_expires"] = expires
        return further

    def _choose(self, request: TaskRequest) -> tuple[Rule, str]:
        pattern = request.pattern
        if pattern is not None:
            if rule := self._exact.get(pattern):
                return rule, f"exact pattern {rule.pattern}"
            for wildcard in self._wildcards:
                if wildcard.expression.fullmatch(pattern):
                    return wildcard.rule, f"{wildcard.kind} {wildcard.rule.pattern}"
        if request.capabilities:
            name = self._capable(request.capabilities)
            if name is not None:
                return self._by_agent[name], f"capabilities {', '.join(request.capabilities)}"
        closest = difflib.get_close_matches(pattern or "", self._patterns, n=CLOSEST_PATTERNS)
        raise UnknownPattern(pattern, closest, request.capabilities)

    def _capable(self, wanted: Iterable[str]) -> str | None:
        """The agent that has all that is wanted and least beside it; the first among equals."""
        needed = frozenset(wanted)
        able = [name for name, agent in self._agents.items() if needed <= set(agent.capabilities)]
        return min(able, key=lambda name: len(self._agents[name].capabilities), default=None)

    def _longest_course(self, attempt_timeout: float) -> float:
        """Seconds that all attempts and the pauses between them can take."""
        retry = self._retry
        pauses = sum(backoff_seconds(retry, attempt) for attempt in range(1, retry.max_attempts))
        return retry.max_attempts * attempt_timeout + pauses * (1 + retry.jitter)


def _rule_per_agent(settings: Settings) -> dict[str, Rule]:
    """How an agent is called when its capabilities chose it: as its first rule says."""
    rules = {
        name: Rule(pattern=name, target_agent=name, endpoint=agent.endpoint)
        for name, agent in settings.agents.items()
    }
    for rule in reversed(settings.routing_rules):
        rules[rule.target_agent] = rule
    return rules


def _endpoint(rule: Rule, agent: str, instances: Sequence[Instance]) -> str:
    """Where the rule has the agent called.

    A whole URL names its instance itself. Where it is the agent's only one, or another agent is
    called in its stead, the path remains, for whatever instances the agent has by then.
    """
    if "://" not in rule.endpoint:
        return rule.endpoint
    base = origin(rule.endpoint)
    if agent == rule.target_agent and [each.url for each in instances] != [base]:
        return rule.endpoint
    return path_of(rule.endpoint)


def led_by(plan: Plan, position: int) -> Plan:
    """The plan with the route at that position first, and the others after it in their order."""
    if position == 0:
        return plan
    routes = list(plan.routes)
    chosen = routes.pop(position)
    away = " and ".join(route.agent for route in plan.routes[:position])
    return plan.model_copy(
        update={
            **dict(chosen),
            "fallbacks": tuple(map(_bare, routes)),
            "chosen_by": f"{plan.chosen_by}; fallback, {away} being unavailable",
        }
    )


def _bare(route: Route) -> Route:
    """The route alone; a plan is one, with more to it."""
    return Route(**{name: getattr(route, name) for name in Route.model_fields})


def specificity(pattern: str, kind: Match) -> int:
    """How many characters of a glob or regex stand for themselves."""
    literal = _GLOB_LITERAL if kind is Match.GLOB else _REGEX_LITERAL
    return sum(1 for match in literal.finditer(pattern) if match["literal"])


def retry_plan(recovery: ErrorRecovery) -> RetryPlan:
    """The engine's retry policy in the words of ``error_recovery``."""
    return RetryPlan(
        max_attempts=recovery.max_retries + 1,
        initial_seconds=recovery.retry_delay,
        backoff=recovery.backoff_multiplier,
        maximum_seconds=max(recovery.max_retry_delay, recovery.retry_delay),
        jitter=recovery.retry_jitter,
        max_retry_after_seconds=recovery.max_retry_after,
    )


def backoff_seconds(retry: RetryPlan, attempt: int) -> float:
    """The pause after a failed attempt (the first is 1), before jitter."""
    try:
        pause = retry.initial_seconds * retry.backoff ** (attempt - 1)
    except OverflowError:
        return retry.maximum_seconds
    return min(pause, retry.maximum_seconds)
