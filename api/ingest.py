"""Tasks that come by messages: the same requests as POST /orchestrate takes, and the same rules."""

from http import HTTPStatus

from starlette.exceptions import HTTPException

from api.dependencies import Services
from api.errors import detail_of, retry_after_of, status_of
from api.requests import checked_key, checked_trace, is_json, json_document, validated
from api.submission import Wish, planned, submit
from orchestrator.errors import MessageDelayed, MessageRefused, PayloadTooLarge
from orchestrator.messaging import Message, Take
from orchestrator.models import TaskRequest
from orchestrator.security.callers import Caller, Scope
from orchestrator.telemetry.logging import get_logger

log = get_logger(__name__)


def taking(services: Services) -> Take:
    """What starts a message's task in this process."""

    async def take(message: Message) -> None:
        try:
            submitted, _ = await submit(services, await _wish(services, message))
        except Exception as error:  # noqa: BLE001 - every error is answered
            raise _refusal(error, message) from None
        log.info(
            "task_accepted" if submitted.created else "task_replayed",
            task_id=submitted.status.task_id,
            agent=submitted.status.agent,
            message_id=message.id,
        )

    return take


async def _wish(services: Services, message: Message) -> Wish:
    limit = services.settings.limits.max_payload_bytes
    if len(message.body) > limit:
        raise PayloadTooLarge(len(message.body), limit)
    if not is_json(message.content_type):
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"The content type is {message.content_type}; send application/json",
        )
    body = json_document(message.body)
    if message.priority is not None and body.get("priority") is None:
        body["priority"] = message.priority
    asked = _broker(services).owned(validated(TaskRequest, body))
    return Wish(
        asked=asked,
        plan=await planned(services, asked),
        key=checked_key(message.id, "The message id"),
        trace=checked_trace(message.traceparent),
        reply=message.reply,
    )


def _broker(services: Services) -> Caller:
    """Whoever may write to the queue: the broker has asked them who they are."""
    tenant = services.settings.message_queue.tenant
    return Caller("broker", tenant, frozenset({Scope.SUBMIT}), "broker")


def _refusal(error: Exception, message: Message) -> MessageRefused | MessageDelayed:
    """What HTTP tells to come again comes again; all else never will."""
    wait = retry_after_of(error)
    if wait is not None:
        return MessageDelayed(wait, str(error))
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("message_broke", message_id=message.id, exc_info=error)
        return MessageRefused(status, "An unexpected error; the log has more")
    return MessageRefused(status, detail_of(error))
