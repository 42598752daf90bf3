"""Worker Versioning of the engine: by which version's workers a workflow is carried on.

The workers of the workflow queue alone have versions. What agents' queues hold are calls, which all
versions make alike; and a version may have a hundred queues only, where there may be more agents.
"""

import asyncio
from datetime import timedelta

from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from orchestrator import __version__
from orchestrator.config import Temporal, Versioning
from orchestrator.errors import StartupError
from orchestrator.telemetry.logging import get_logger

RETRY_SECONDS = 0.2
_NOT_YET = {
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
}

log = get_logger(__name__)


def deployment_of(versioning: Versioning) -> WorkerDeploymentConfig | None:
    """What the engine is to know of this process's version; None where versions are off."""
    if not versioning.enabled:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(versioning.deployment, build_of(versioning)),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


def build_of(versioning: Versioning) -> str:
    """The build id: the configured one, or the version of this package."""
    return versioning.build_id or __version__


async def make_current(client: Client, temporal: Temporal) -> None:
    """Make this process's version the current one where it has to be; its worker has to run.

    The embedded engine is for one version at a time: the one that was started last. Elsewhere
    operators choose, but for the first version of all, which nobody else could make current before
    its tasks wait.

    Raises:
        StartupError: the engine refuses it, or does not know the version in time.
    """
    versioning = temporal.versioning
    if not versioning.enabled:
        return None
    reason = ""
    try:
        async with asyncio.timeout(temporal.connect_timeout):
            while True:
                try:
                    return await _make_current(client, temporal)
                except RPCError as error:
                    reason = error.message
                    if error.status not in _NOT_YET:
                        raise
                await asyncio.sleep(RETRY_SECONDS)
    except RPCError as error:
        raise StartupError(
            f"The engine refuses Worker Versioning: {error.message}; upgrade the server, or set "
            "temporal.versioning.enabled: false"
        ) from None
    except TimeoutError:
        raise StartupError(
            f"The engine did not take version {build_of(versioning)} of deployment "
            f"'{versioning.deployment}' within {temporal.connect_timeout:g} s: {reason}"
        ) from None


async def _make_current(client: Client, temporal: Temporal) -> None:
    versioning, timeout = temporal.versioning, timedelta(seconds=temporal.rpc_timeout)
    build = build_of(versioning)
    found = await client.workflow_service.describe_worker_deployment(
        DescribeWorkerDeploymentRequest(
            namespace=client.namespace, deployment_name=versioning.deployment
        ),
        timeout=timeout,
    )
    current = found.worker_deployment_info.routing_config.current_deployment_version.build_id
    if current == build:
        return
    if current and not temporal.is_embedded:
        log.info(
            "version_not_current", deployment=versioning.deployment, build=build, current=current
        )
        return
    await client.workflow_service.set_worker_deployment_current_version(
        SetWorkerDeploymentCurrentVersionRequest(
            namespace=client.namespace,
            deployment_name=versioning.deployment,
            build_id=build,
            identity=client.identity,
            conflict_token=found.conflict_token,
            ignore_missing_task_queues=True,
        ),
        timeout=timeout,
    )
    log.info(
        "version_current", deployment=versioning.deployment, build=build, before=current or None
    )
