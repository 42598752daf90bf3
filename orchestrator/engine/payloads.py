"""How payloads travel to the engine by the configuration: in the clear or encrypted, and where."""

from pathlib import Path

from temporalio.converter import DataConverter, ExternalStorage, PayloadCodec

from orchestrator.config import Encryption, Settings
from orchestrator.encryption_keys import EncryptionKey
from orchestrator.engine.converter import converter, data_converter
from orchestrator.errors import StartupError

_FILE = "payloads.encryption.keys_file"


def converter_of(settings: Settings) -> DataConverter:
    """The converter of every client of the engine; where nothing is configured it costs nothing.

    Raises:
        StartupError: the keys cannot be read, or the storage is not there.
    """
    section = settings.payloads
    if not (section.encryption.is_on or section.storage.is_on):
        return data_converter
    return converter(settings.max_blob_bytes, codec_of(settings), storage_of(settings))


def codec_of(settings: Settings) -> PayloadCodec | None:
    """What encrypts and decrypts, if anything does.

    Raises:
        StartupError: the keys cannot be read.
    """
    section = settings.payloads
    if not section.encryption.is_on:
        return None
    from orchestrator.engine.encryption import EncryptionCodec  # noqa: PLC0415 - none pays for it

    return EncryptionCodec(
        keys_of(section.encryption),
        section.storage.threshold if section.storage.is_on else None,
        encrypts=section.encryption.encrypt,
    )


def storage_of(settings: Settings) -> ExternalStorage | None:
    """Where large payloads are kept, if anywhere.

    Raises:
        StartupError: it is not there.
    """
    section = settings.payloads.storage
    if not section.is_on:
        return None
    from orchestrator.engine.objects import objects_of  # noqa: PLC0415 - as above
    from orchestrator.engine.storage import PayloadDriver  # noqa: PLC0415

    objects = objects_of(section, settings.storage.data_dir)
    objects.check()
    return ExternalStorage([PayloadDriver(objects)], payload_size_threshold=section.threshold)


def keys_of(section: Encryption) -> list[EncryptionKey]:
    """The keys in their order.

    Raises:
        StartupError: the file cannot be read, a line of it is wrong, or two keys have one id.
    """
    keys = [EncryptionKey.of(each.get_secret_value()) for each in section.keys if each]
    if section.keys_file is not None:
        keys += _keys_in(section.keys_file)
    known: dict[str, EncryptionKey] = {}
    for key in keys:
        if known.setdefault(key.id, key) != key:
            raise StartupError(f"payloads.encryption: two keys have the id '{key.id}'")
    return list(known.values())


def _keys_in(path: Path) -> list[EncryptionKey]:
    """The keys of a file, one a line; empty lines and those that begin with ``#`` are left out."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not ASCII text"
        raise StartupError(f"{_FILE}: {path} cannot be read: {reason}") from None
    keys = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                keys.append(EncryptionKey.of(line))
            except ValueError as error:
                raise StartupError(
                    f"{_FILE}: {path}:{number} holds no key; allowed: {error}"
                ) from None
    if not keys:
        raise StartupError(f"{_FILE}: {path} holds no key")
    return keys
