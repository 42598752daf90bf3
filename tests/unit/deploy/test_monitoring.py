"""The alert rules and the dashboard, and the metrics that they name."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.metrics import promtool

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
COLUMNS = 24
RUNBOOK = "docs/operations/alerts.md"


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, rows with them."""
    return list(json.loads(DASHBOARD.read_text())["panels"])


def documented() -> set[str]:
    """Every metric that docs/metrics.md has a line of."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    return set(re.findall(r"^\| `((?:orchestrator|temporal)_\w+)`", page, re.MULTILINE))


def named_by(expression: str) -> set[str]:
    """The metrics of ours and of the client that a query names."""
    found = re.findall(r"\b(?:orchestrator|temporal)_[a-z_]+\b", expression)
    return {re.sub(r"_(bucket|count|sum)$", "", each) for each in found}


def test_promtool_finds_nothing_in_the_configuration_and_the_alerts() -> None:
    """Syntax, and the file that it names."""
    said = promtool("check", "config", "prometheus.yml", directory=PROMETHEUS)
    assert "SUCCESS" in said
    promtool("check", "rules", "alerts.yml", directory=PROMETHEUS)


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    """By promtool's own tests of rules."""
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml", directory=PROMETHEUS)


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    """A severity, a summary, a description and a runbook each."""
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]

    assert rules
    for rule in rules:
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"]), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]


def test_every_alert_has_its_section_of_the_runbook() -> None:
    """Which its URL names; and no section is about an alert that is gone."""
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    page = (ROOT / RUNBOOK).read_text()
    sections = dict(re.findall(r"^## (\w+)\n\n\*(\w+)\.\*", page, re.MULTILINE))

    assert {rule["alert"]: rule["labels"]["severity"] for rule in rules} == sections
    for rule in rules:
        assert f"{RUNBOOK}#{rule['alert'].lower()}" == rule["annotations"]["runbook_url"]


def test_the_alerts_name_documented_metrics_only() -> None:
    """Which those are, an end-to-end test compares with what is told."""
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    named = set().union(*(named_by(rule["expr"]) for rule in rules))

    assert named
    assert set() == named - documented()


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    """And of the client's those that are documented."""
    queries = [target["expr"] for each in panels() for target in each.get("targets", ())]
    named = set().union(*map(named_by, queries))

    assert set() == named - documented()
    ours = {each for each in documented() if each.startswith("orchestrator_")}
    assert {"orchestrator_build_info"} == ours - named


def test_the_dashboards_panels_fill_its_rows_and_none_covers_another() -> None:
    """Each has a title, a description and an id of its own."""
    taken: dict[tuple[int, int], str] = {}
    for each in panels():
        place = each["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, each["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (each["title"], taken.get((x, y)))
                taken[x, y] = each["title"]
        assert each["type"] == "row" or each["description"], each["title"]
    height = max(y for _, y in taken) + 1
    assert COLUMNS * height == len(taken)
    assert len(panels()) == len({each["id"] for each in panels()})
