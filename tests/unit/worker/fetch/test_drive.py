"""The page before a large file of Google Drive."""

import pytest

from sdq.worker.fetch.drive import confirmed
from sdq.worker.fetch.faults import Unreachable

URL = "https://drive.usercontent.google.com/download?id=1A&export=download"


def test_the_button_of_the_page() -> None:
    page = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head>
    <body><form id="search" action="/search"><input name="q" value="no"></form>
    <form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
    <input type="submit" value="Download anyway">
    <input type="hidden" name="id" value="1A"><input type="hidden" name="confirm" value="t">
    <input type="hidden" name="uuid" value="a&amp;b"></form>
    <form action="/download-other"><input name="id" value="other"></form></body></html>"""
    assert confirmed(page, URL) == (
        "https://drive.usercontent.google.com/download?id=1A&confirm=t&uuid=a%26b"
    )


def test_a_page_without_a_button_is_told_by_its_title() -> None:
    page = b"<title>Google Drive -\n Quota exceeded</title><p>Too many users have viewed"
    with pytest.raises(Unreachable, match=r"Google Drive - Quota exceeded"):
        confirmed(page, URL)


@pytest.mark.parametrize(
    "action", ["http://host/download", "file:///download", "javascript:download"]
)
def test_a_button_to_another_scheme_is_not_followed(action: str) -> None:
    page = f'<form action="{action}"><input name="id" value="1"></form>'.encode()
    with pytest.raises(Unreachable, match="not followed"):
        confirmed(page, URL)


def test_no_text_at_all() -> None:
    with pytest.raises(Unreachable, match="no title"):
        confirmed(b"\xff\xfe\x00<", URL)


@pytest.mark.parametrize("page", [b"<![foo bar]>", b"<![ ]>", b"<title>x</title><![1"])
def test_broken_html_is_a_page_too(page: bytes) -> None:
    with pytest.raises(Unreachable, match="instead of a file"):
        confirmed(page, URL)


def test_a_button_that_leads_nowhere() -> None:
    with pytest.raises(Unreachable, match="leads nowhere"):
        confirmed(b'<form action="http://[/download">', URL)
