"""One connection to the engine per process."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client, GrpcCompression, Interceptor
from temporalio.converter import DataConverter
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import PayloadLimitsConfig, RPCError, TLSConfig

from orchestrator.config import Temporal
from orchestrator.engine import diagnosis, search_attributes
from orchestrator.engine.converter import MAX_BLOB_BYTES, data_converter
from orchestrator.engine.rpc import names_missing_namespace
from orchestrator.errors import StartupError
from orchestrator.telemetry.exposition import Exposition
from orchestrator.telemetry.metrics import SECONDS

RETRY_SECONDS = 0.25
_FAST = (
    "request_latency",
    "workflow_task_schedule_to_start_latency",
    "activity_schedule_to_start_latency",
)
"""Those of the client's histograms whose own buckets begin at 50 or 100 ms."""
_MISSING = "missing namespace"


async def connect(
    temporal: Temporal,
    identity: str,
    metrics: Exposition | None = None,
    interceptors: Sequence[Interceptor] = (),
    *,
    converter: DataConverter = data_converter,
    register: bool = True,
) -> Client:
    """Connect, and make sure that the search attributes exist.

    Waits up to ``connect_timeout`` for an engine that is just starting.

    Args:
        temporal: where the engine is.
        identity: what the engine calls this process.
        metrics: to which the client is to add its own; said at a process's first connection.
        interceptors: of the client and of its workers.
        converter: by which payloads travel, as the configuration has it.
        register: add the search attributes that the engine lacks.

    Raises:
        StartupError: no engine there, or it refuses us.
    """
    reasons: list[str] = []
    try:
        async with asyncio.timeout(temporal.connect_timeout):
            runtime = _runtime(metrics)
            return await _connect_patiently(
                temporal,
                identity,
                runtime,
                interceptors,
                reasons,
                converter=converter,
                register=register,
            )
    except TimeoutError:
        raise StartupError(_no_answer(temporal, reasons[-1] if reasons else "")) from None


def _no_answer(temporal: Temporal, reason: str) -> str:
    if reason == _MISSING:
        return (
            f"The engine at {temporal.target} has no namespace '{temporal.namespace}': correct "
            "temporal.namespace (TEMPORAL_NAMESPACE), or make it: temporal operator namespace "
            f"create --namespace {temporal.namespace}"
        )
    return (
        f"No engine answers at {temporal.target} (temporal.address) within "
        f"{temporal.connect_timeout:g} s{': ' if reason else ''}{reason}; start it, or correct the "
        "address"
    )


async def _connect_patiently(
    temporal: Temporal,
    identity: str,
    runtime: Runtime,
    interceptors: Sequence[Interceptor],
    reasons: list[str],
    *,
    converter: DataConverter,
    register: bool,
) -> Client:
    """Try until cancelled; each failure's reason is added to ``reasons``."""
    tls = _tls(temporal)
    while True:
        try:
            client = await Client.connect(
                temporal.target,
                namespace=temporal.namespace,
                api_key=temporal.api_key.get_secret_value() if temporal.api_key else None,
                tls=tls,
                rpc_metadata={k: v.get_secret_value() for k, v in temporal.grpc_meta.items()},
                data_converter=converter,
                # Large payloads are meant here; what is too large, the converter refuses.
                payload_limits=PayloadLimitsConfig(payloads_warn_size=MAX_BLOB_BYTES),
                grpc_compression=_compression(temporal),
                identity=identity,
                interceptors=interceptors,
                runtime=runtime,
            )
            if register:
                await search_attributes.register(client, timedelta(seconds=temporal.rpc_timeout))
        except RPCError as error:
            diagnosis.refused(temporal, error)
            reasons.append(_MISSING if names_missing_namespace(error) else error.message)
        except RuntimeError as error:
            # The client's word for a connection that could not be made.
            reasons.append(await diagnosis.reason_of(temporal, error))
        else:
            return client
        await asyncio.sleep(RETRY_SECONDS)


def _compression(temporal: Temporal) -> GrpcCompression:
    return GrpcCompression.GZIP if temporal.compresses else GrpcCompression.NONE


def _tls(temporal: Temporal) -> TLSConfig | bool:
    section = temporal.tls
    if section is None or not section.enabled:
        return temporal.uses_tls
    key = section.key_data.get_secret_value() if section.key_data else None
    return TLSConfig(
        server_root_ca_cert=_read(section.ca_file, section.ca_data),
        domain=section.server_name,
        client_cert=_read(section.cert_file, section.cert_data),
        client_private_key=_read(section.key_file, key),
    )


def _read(path: str | None, data: str | None) -> bytes | None:
    if path is None:
        return data.encode() if data else None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartupError(f"temporal.tls: {path} cannot be read: {error.strerror}") from None


_runtimes: list[Runtime] = []


def _runtime(metrics: Exposition | None) -> Runtime:
    """The process's one SDK runtime; its log lines join ours."""
    if not _runtimes:
        logging_config = LoggingConfig(
            filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
            forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
        )
        telemetry = TelemetryConfig(
            logging=logging_config,
            metrics=_prometheus(metrics.sdk_address) if metrics else None,
            attach_service_name=False,
        )
        _runtimes.append(Runtime(telemetry=telemetry))
    return _runtimes[0]


def _prometheus(address: str) -> PrometheusConfig:
    """Names and units as Prometheus wants them, and buckets that tell fast calls apart."""
    return PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=dict.fromkeys(_FAST, SECONDS),
    )
