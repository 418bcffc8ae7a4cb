"""The pages in Firefox, from files: it has rules of its own for files, storage and WebGL."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from firefox import Firefox, executable
from made_review import LESION, detection, make_run
from matplotlib.image import imread

from medvae.review.scan_page import ScanPage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Firefox and Xvfb (Debian: firefox-esr, xvfb)")

READY = "document.documentElement?.dataset.ready === 'true'"
HARMLESS = "niivue.js: WEBGL_debug_renderer_info is deprecated"
ROW = "[...document.querySelectorAll('tbody tr')].find((one) => one.textContent.includes('ill')).textContent"


def test_a_scan_is_drawn_judged_and_shown_without_webgl2(tmp_path: Path) -> None:
    """One test, for Firefox takes seconds to start."""
    out = make_run(tmp_path, [detection("ill", montage=True), detection("well", top=0.1)])
    page = out / ScanPage("ill").name
    with Firefox() as firefox:
        firefox.open(page, ready=READY)
        assert firefox.js("document.querySelector('#why').textContent") == ""
        assert firefox.js("medvae.viewer.here().file") == list(LESION)
        firefox.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seen = imread(io.BytesIO(firefox.picture()))[60:600, 20:800, :3]
        assert (seen.mean(axis=-1) > 0.2).mean() > 0.02, "the scan"
        assert (np.ptp(seen, axis=-1) > 0.3).sum() > 200, "and its map"
        firefox.js("document.querySelector('#candidates select').value = 'artefact'")
        firefox.js("document.querySelector('#candidates select').dispatchEvent(new Event('change'))")
        firefox.open(page, ready=READY)
        assert firefox.js("document.querySelector('#candidates select').value") == "artefact", "it is kept"
        firefox.open(out / "review" / "index.html")
        assert firefox.js("document.querySelectorAll('#worklist tbody tr').length") == 2
        assert "1 of 1" in firefox.js(ROW), "and seen by the worklist"
        firefox.inside("Services.prefs.setBoolPref('webgl.disabled', true)")
        firefox.open(page, ready=READY)
        assert "WebGL2" in firefox.js("document.querySelector('#why').textContent")
        assert firefox.js("document.querySelector('#instead img').naturalWidth") == 1600
        assert [text for text in firefox.complaints() if HARMLESS not in text] == []
