"""Verdicts where the browser's space for pages is used up: they last until the page is closed, and are exported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made_review import detection, make_run
from made_samples import make_set

from medvae.review.scan_page import ScanPage

if TYPE_CHECKING:
    from pathlib import Path

    from chromium import Tab

READY = "document.documentElement?.dataset.ready === 'true'"
FULL = """
  globalThis.full = false;
  const set = Storage.prototype.setItem;
  Storage.prototype.setItem = function (key, value) {
    if (globalThis.full) throw new DOMException("full", "QuotaExceededError");
    set.call(this, key, value);
  };
  URL.createObjectURL = (blob) => { globalThis.file = blob; return "#"; };
  HTMLAnchorElement.prototype.click = () => {};
"""
UNLOAD = "!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"  # whether it asks before it closes


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("storage") / "out", [detection("ill", montage=True)])


def opened(tab: Tab, out: Path) -> None:
    tab.open(out / ScanPage("ill").name, ready=READY)


def exported(tab: Tab) -> dict[str, Any]:
    """Of the one scan in the file that the page gives."""
    tab.js("document.querySelector('#export').click()")
    (scan,) = json.loads(tab.js("file.text()"))["scans"]
    return {"candidates": scan["candidates"], "note": scan["note"]}


def write_note(tab: Tab, words: str) -> None:
    note = "document.querySelector('#note')"
    tab.js(f"{note}.value = {json.dumps(words)}; {note}.dispatchEvent(new Event('input')); {note}.blur()")


def told(tab: Tab) -> str:
    return str(tab.js("document.querySelector('#said').textContent"))


def test_a_verdict_that_could_not_be_kept_is_exported(tab: Tab, out: Path) -> None:
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=FULL)
    opened(tab, out)
    tab.js("localStorage.clear(); document.activeElement.blur()")
    tab.press("1")
    assert not tab.js(UNLOAD)
    tab.js("globalThis.full = true")
    tab.press("2")
    write_note(tab, "a vein")
    assert "no space left" in told(tab)
    assert tab.js(UNLOAD), "the page asks before it is closed"
    assert exported(tab) == {"candidates": {"1": "normal variant"}, "note": "a vein"}
    assert not tab.js(UNLOAD), "all is in a file"
    tab.press("3")
    assert tab.js(UNLOAD)
    tab.js("globalThis.full = false")
    write_note(tab, "seen")
    assert not tab.js(UNLOAD), "the browser has all again"
    assert exported(tab) == {"candidates": {"1": "artefact"}, "note": "seen"}


def test_what_one_scan_lacks_is_not_forgotten_when_the_next_is_kept(tab: Tab, tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", ["a", "b"])
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=FULL)
    tab.open(out / "review" / "index.html")
    a, b = (row["key"] for row in tab.js("medvaeRun.rows"))
    accept = f"(key) => medvae.write(key, {json.dumps({'verdict': 'accept'})})"
    tab.js(f"localStorage.clear(); full = true; ({accept})('{a}'); full = false; ({accept})('{b}')")
    assert tab.js(UNLOAD), "the first verdict is in memory alone"
    assert tab.js(f"medvae.read('{a}').verdict") == "accept"


def test_verdicts_kept_before_the_space_was_used_up_are_shown(tab: Tab, out: Path) -> None:
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=FULL)
    opened(tab, out)
    tab.js("localStorage.clear(); document.activeElement.blur()")
    tab.press("1")
    tab.call("Page.addScriptToEvaluateOnNewDocument", source="globalThis.full = true")
    opened(tab, out)
    assert tab.js("document.querySelector('#candidates select').value") == "lesion"
    assert "no space left" in told(tab)
