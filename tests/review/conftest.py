"""A browser for the tests of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chromium import Browser, Tab, executable

if TYPE_CHECKING:
    from collections.abc import Iterator

HARMLESS = "GL Driver Message"  # of the software renderer


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if executable() is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with Browser() as opened:
        yield opened


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A page that must not complain, nor ask for anything but files."""
    opened = browser.tab()
    yield opened
    opened.close()
    assert [text for text in opened.complaints if HARMLESS not in text] == []
    elsewhere = [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:", "about:"))]
    assert elsewhere == []
