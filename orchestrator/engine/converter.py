"""How our models travel through the engine: plain JSON, and clear words for what does not fit."""

from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import (
    PydanticJSONPlainPayloadConverter,
    ToJsonOptions,
    pydantic_data_converter,
)
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError

from orchestrator.errors import PayloadTooLarge

INVALID_INPUT = "InvalidInput"
MAX_BLOB_BYTES = 2_000_000
"""The engine refuses single payloads over 2 MiB, partly by retrying for ever; we stop before."""


class _JSONConverter(PydanticJSONPlainPayloadConverter):
    """JSON whose misfits fail a workflow at once instead of retrying its first task for ever."""

    def to_payload(self, value: Any) -> Payload | None:
        payload = super().to_payload(value)
        if payload is not None and len(payload.data) > MAX_BLOB_BYTES:
            raise PayloadTooLarge(len(payload.data), MAX_BLOB_BYTES)
        return payload

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        try:
            return super().from_payload(payload, type_hint)
        except ValidationError as error:
            raise ApplicationError(
                "The input does not fit: " + "; ".join(problems(error)),
                type=INVALID_INPUT,
                non_retryable=True,
            ) from None


# The client makes a converter for each workflow; what they share is built once.
_ENCODINGS = tuple(
    _JSONConverter(ToJsonOptions(exclude_unset=True))
    if isinstance(each, JSONPlainPayloadConverter)
    else each
    for each in DefaultPayloadConverter.default_encoding_payload_converters
)


class _PayloadConverter(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(*_ENCODINGS)


class _FailureConverter(DefaultFailureConverter):
    """Failures that we raise on purpose tell all in their message; a stack would be noise."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, ApplicationError):
            failure.stack_trace = ""


def problems(error: ValidationError) -> list[str]:
    """Each misfit in one line: ``priority: Input should be less than or equal to 5``."""
    return [
        ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"])))
        for each in error.errors(include_url=False, include_input=False)
    ]


data_converter: DataConverter = replace(
    pydantic_data_converter,
    payload_converter_class=_PayloadConverter,
    failure_converter_class=_FailureConverter,
)
