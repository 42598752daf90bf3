"""deploy/kubernetes: built by kustomize, right by the schemas, and fit for production."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from orchestrator.config_file import load

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.32"
PARTS = ["api", "worker"]


@cache
def parsed() -> tuple[dict[str, Any], ...]:
    """Every object of the files, as written."""
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    texts = ((FOLDER / name).read_text() for name in names)
    return tuple(each for text in texts for each in yaml.safe_load_all(text))


def the(kind: str, part: str) -> dict[str, Any]:
    """The one object of that kind for a part."""
    name = f"orchestrator-{part}"
    [found] = [e for e in parsed() if (kind, name) == (e["kind"], e["metadata"]["name"])]
    return found


def container(part: str) -> dict[str, Any]:
    """The container of a part."""
    [found] = the("Deployment", part)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def built() -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of it; skipped where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here, nor does a Debian package have its kustomize")
    command = [kubectl, "kustomize", str(FOLDER)]
    own = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=own)
    assert 0 == done.returncode, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("each", parsed(), ids=lambda each: f"{each['kind']}")
def test_object_follows_its_schema(each: dict[str, Any]) -> None:
    """Every field is one that this version of Kubernetes knows."""
    kubernetes_validate.validate(each, VERSION, strict=True)


def test_wrong_field_fails_its_schema() -> None:
    """The check is a real one."""
    wrong = the("Service", "api") | {"specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_kustomize_builds_it_whole() -> None:
    """With the generated configuration; what comes out follows the schemas too."""
    objects = built()
    assert len(parsed()) + 2 == len(objects)
    for each in objects:
        kubernetes_validate.validate(each, VERSION, strict=True)


@pytest.mark.parametrize("part", PARTS)
def test_probes_tell_life_from_readiness(part: str) -> None:
    """An engine that is away restarts no pod."""
    told = container(part)
    paths = {name: told[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert {"liveness": "/live", "readiness": "/ready"} == paths


@pytest.mark.parametrize("part", PARTS)
def test_pod_is_confined(part: str) -> None:
    """No root, nothing to write to but /tmp, no capabilities."""
    pod = the("Deployment", part)["spec"]["template"]["spec"]["securityContext"]
    own = container(part)["securityContext"]
    assert pod["runAsNonRoot"]
    assert own["readOnlyRootFilesystem"]
    assert (False, ["ALL"]) == (own["allowPrivilegeEscalation"], own["capabilities"]["drop"])


@pytest.mark.parametrize("part", PARTS)
def test_one_at_a_time_may_go(part: str) -> None:
    """The budget and the autoscaler are about the pods of their part."""
    labels = the("Deployment", part)["spec"]["template"]["metadata"]["labels"]
    budget = the("PodDisruptionBudget", part)["spec"]
    scaler = the("HorizontalPodAutoscaler", part)["spec"]
    assert (1, labels) == (budget["maxUnavailable"], budget["selector"]["matchLabels"])
    assert (f"orchestrator-{part}", 2) == (scaler["scaleTargetRef"]["name"], scaler["minReplicas"])


def test_workers_are_scaled_by_what_waits() -> None:
    """By the metric that the adapter's rule makes of one of ours."""
    [rule] = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    metrics = the("HorizontalPodAutoscaler", "worker")["spec"]["metrics"]
    names = [each["external"]["metric"]["name"] for each in metrics if each["type"] == "External"]
    assert [rule["name"]["as"]] == names
    assert "orchestrator_agent_queue_size" in rule["metricsQuery"]
    assert "`orchestrator_agent_queue_size`" in (ROOT / "docs" / "metrics.md").read_text()


def test_configuration_is_understood() -> None:
    """The file, with the variables beside it but those of files that only a pod has."""
    made = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"]
    [literals] = [each["literals"] for each in made if "literals" in each]
    variables = dict(each.split("=", 1) for each in literals)
    settings = load(
        FOLDER / "config.yaml",
        {k: v for k, v in variables.items() if not k.endswith("_FILE")},
    )
    assert "temporal-frontend.temporal:7233" == settings.temporal.target
    assert ["summary_agent"] == list(settings.agents)
