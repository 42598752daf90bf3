"""Shipped documents and PDF extraction."""

import base64
import io

import pytest
from pypdf import PdfWriter

from examples.agents.contract import NotShipped, Refusal
from examples.agents.documents import file_bytes, glossary, lesson, lessons, pdf_pages, shipped
from examples.agents.ingestion import ingest


def blank_pdf(password: str | None = None) -> bytes:
    """Make a PDF of one blank page."""
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize(("name", "pages"), [("document.pdf", 3), ("test.pdf", 1)])
def test_shipped_pdf_has_its_pages(name: str, pages: int) -> None:
    """The documented files are there and are read to the end."""
    assert pages == ingest({"file": name})["pages"]


def test_extracted_text_is_whole() -> None:
    """Words come out of the PDF unbroken."""
    text = " ".join(ingest({"file": "document.pdf"})["extracted_text"].split())
    assert "Chlorophyll catches light. Stomata let gases pass." in text


def test_extraction_finds_headings() -> None:
    """Headings are told from wrapped lines."""
    expected = ["The Water Cycle", "From vapour to rain", "The way back"]
    assert expected == ingest({"file": "test.pdf"})["headings"]


def test_uploaded_pdf_is_read() -> None:
    """A PDF in base64 is read like a shipped one."""
    content = base64.encodebytes(file_bytes("test.pdf")).decode()
    uploaded = ingest({"file": "mine.pdf", "content_base64": content})
    assert ingest({"file": "test.pdf"}) | {"file": "mine.pdf"} == uploaded


def test_page_without_text_is_empty() -> None:
    """A blank page has no words, and that is no error."""
    expected = [""]
    assert expected == pdf_pages(blank_pdf())


@pytest.mark.parametrize(
    "name",
    ["missing.pdf", "../agents/app.py", "/etc/passwd", "source/test.html", "", ".", "a\0.pdf"],
)
def test_only_shipped_names_are_opened(name: str) -> None:
    """Any other name is unknown, and the answer names what is there."""
    with pytest.raises(NotShipped, match="document"):
        ingest({"file": name})


@pytest.mark.parametrize("content", [b"", b"no pdf", b"%PDF-1.7\n%%EOF"])
def test_broken_pdf_is_refused(content: bytes) -> None:
    """A file that is no PDF is refused with the reason."""
    with pytest.raises(Refusal, match="not a readable PDF"):
        pdf_pages(content)


def test_truncated_pdf_is_refused() -> None:
    """Half a PDF is no PDF."""
    with pytest.raises(Refusal, match="not a readable PDF"):
        pdf_pages(file_bytes("test.pdf")[:9000])


def test_encrypted_pdf_is_refused() -> None:
    """A PDF behind a password is not read."""
    with pytest.raises(Refusal, match="encrypted"):
        pdf_pages(blank_pdf("secret"))


def test_strongly_encrypted_pdf_is_refused() -> None:
    """A PDF encrypted by a cipher that is not installed is refused for the same reason."""
    content = blank_pdf("secret").replace(b"/V 2", b"/V 5").replace(b"/R 3", b"/R 6")
    with pytest.raises(Refusal, match="encrypted"):
        pdf_pages(content)


def test_content_that_is_no_base64_is_refused() -> None:
    """The refusal names the field."""
    with pytest.raises(Refusal, match="content_base64"):
        ingest({"content_base64": "%%%"})


def test_lessons_have_title_and_subject() -> None:
    """A lesson's head is taken apart."""
    found = lesson("lesson-101")
    expected = ("How plants make food", "biology")
    assert expected == (found.title, found.subject)


def test_unknown_lesson_names_the_known_ones() -> None:
    """The answer to a wrong id helps to find a right one."""
    with pytest.raises(NotShipped, match="lesson-101, lesson-102"):
        lesson("lesson-999")


def test_lessons_have_different_subjects() -> None:
    """The classifier has something to tell apart."""
    assert len(lessons()) == len({found.subject for found in lessons().values()})


@pytest.mark.parametrize("language", ["german", "spanish"])
def test_glossary_has_no_gaps(language: str) -> None:
    """Every English word has a translation."""
    assert all(glossary(language).values())


def test_shipped_pdfs_are_small() -> None:
    """Documents to try the agents with stay below 60 kB."""
    assert all(path.stat().st_size < 60_000 for path in shipped().values())
