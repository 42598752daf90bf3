"""How our models travel through the engine: plain JSON, and clear words for what does not fit."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter, ToJsonOptions
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    ExternalStorage,
    JSONPlainPayloadConverter,
    PayloadCodec,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError

from orchestrator.config import ENGINE_BYTES
from orchestrator.engine.rpc import beside_engine
from orchestrator.errors import PayloadTooLarge, PayloadUnreadable

INVALID_INPUT = "InvalidInput"
MAX_BLOB_BYTES = ENGINE_BYTES


class _JSONConverter(PydanticJSONPlainPayloadConverter):
    """JSON whose misfits fail a workflow at once instead of retrying its first task for ever."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))
        self._max_bytes = max_bytes

    def to_payload(self, value: Any) -> Payload | None:
        payload = super().to_payload(value)
        if payload is not None and len(payload.data) > self._max_bytes:
            raise PayloadTooLarge(len(payload.data), self._max_bytes)
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


class _EncryptedConverter(EncodingPayloadConverter):
    """Says what is the matter where a payload is encrypted and this process has no key at all."""

    @property
    def encoding(self) -> str:
        return "binary/encrypted"

    def to_payload(self, value: Any) -> Payload | None:  # noqa: ARG002 - encrypts nothing
        return None

    def from_payload(
        self,
        payload: Payload,
        type_hint: type | None = None,  # noqa: ARG002 - the SDK's signature
    ) -> Any:
        key_id = payload.metadata.get("encryption-key-id", b"?").decode(errors="replace")
        raise PayloadUnreadable(
            f"A payload was encrypted with key '{key_id}', and this process has no keys; add it to "
            "payloads.encryption"
        )


def _payload_converter(max_bytes: int) -> type[PayloadConverter]:
    """The class of converters that take so much; what its instances share is built once.

    The client makes one for each workflow.
    """
    encodings = tuple(
        _JSONConverter(max_bytes) if isinstance(each, JSONPlainPayloadConverter) else each
        for each in DefaultPayloadConverter.default_encoding_payload_converters
    )

    class _PayloadConverter(CompositePayloadConverter):
        def __init__(self) -> None:
            super().__init__(*encodings, _EncryptedConverter())

    return _PayloadConverter


class _FailureConverter(DefaultFailureConverter):
    """Failures that we raise on purpose tell all in their message; a stack would be noise."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, ApplicationError):
            failure.stack_trace = ""


class _SealedFailureConverter(_FailureConverter):
    """Failures whose texts, which may quote an agent's answer, are encrypted as payloads are."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        told = {"message": failure.message, "stack_trace": failure.stack_trace}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payload(told))
        failure.message, failure.stack_trace = "Encoded failure", ""


class _UnhurriedConverter(DataConverter):
    """Writes and reads payloads of any size: the time for it is none of the engine's."""

    async def encode(self, values: Sequence[Any]) -> list[Payload]:
        with beside_engine(keeps_turn=True):
            return await super().encode(values)

    async def decode(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        with beside_engine(keeps_turn=True):
            return await super().decode(payloads, type_hints)

    async def encode_failure(self, exception: BaseException, failure: Failure) -> None:
        with beside_engine(keeps_turn=True):
            await super().encode_failure(exception, failure)

    async def decode_failure(self, failure: Failure) -> BaseException:
        with beside_engine(keeps_turn=True):
            return await super().decode_failure(failure)


def problems(error: ValidationError) -> list[str]:
    """Each misfit in one line: ``priority: Input should be less than or equal to 5``."""
    return [
        ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"])))
        for each in error.errors(include_url=False, include_input=False)
    ]


def converter(
    max_bytes: int = MAX_BLOB_BYTES,
    codec: PayloadCodec | None = None,
    storage: ExternalStorage | None = None,
) -> DataConverter:
    """How payloads travel: of at most so many bytes each, through a codec, into a storage."""
    unhurried = codec is not None or storage is not None
    return (_UnhurriedConverter if unhurried else DataConverter)(
        payload_converter_class=_payload_converter(max_bytes),
        failure_converter_class=_SealedFailureConverter if codec else _FailureConverter,
        payload_codec=codec,
        external_storage=storage,
    )


data_converter: DataConverter = converter()
"""In the clear, and all to the engine."""
