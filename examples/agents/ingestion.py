"""The agent that takes the text out of a PDF."""

import base64
import binascii
import hashlib
from typing import Self

from pydantic import model_validator

from examples.agents.contract import Answer, Payload, Refusal, Wish
from examples.agents.documents import file_bytes, pdf_pages
from examples.agents.prose import outline, words


class Upload(Wish):
    """A PDF: the name of a shipped one, or the whole file in base64."""

    file: str | None = None
    content_base64: str | None = None

    @model_validator(mode="after")
    def _some_content(self) -> Self:
        if self.file is None and self.content_base64 is None:
            raise ValueError("give file, the name of a shipped document, or content_base64")
        return self

    def content(self) -> bytes:
        """Give the bytes of the PDF; an uploaded content wins and ``file`` is then its name."""
        if self.content_base64 is None:
            return file_bytes(str(self.file))
        try:
            return base64.b64decode("".join(self.content_base64.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refusal("content_base64: expected base64 of a PDF file") from error


def ingest(payload: Payload) -> Answer:
    """Extract the text of a PDF, page by page."""
    upload = Upload.model_validate(payload)
    content = upload.content()
    pages = pdf_pages(content)
    text = "\n".join(pages)
    return {
        "file": upload.file or "upload.pdf",
        "pages": len(pages),
        "extracted_text": text,
        "words": len(words(text)),
        "words_by_page": [len(words(page)) for page in pages],
        "headings": [section.heading for section in outline(text) if section.heading],
        "sha256": hashlib.sha256(content).hexdigest(),
        "method": "text layer of the PDF read with pypdf; scanned images are not recognised",
    }
