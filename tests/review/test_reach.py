"""The pages without a mouse: every control by Tab, with a mark that is seen, and the cross-hair by a finger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from chromium import Tab, executable
from made_review import detection, make_run

from medvae.review.scan_page import ScanPage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium (Debian: apt-get install chromium)")

READY = "document.documentElement?.dataset.ready === 'true'"
TAB, SHIFT = 9, 8
CONTROLS = """globalThis.controls = [...document.querySelectorAll(
    'a[href], button, select, input, textarea, summary, [tabindex="0"]')].filter((one) => one.checkVisibility())"""
# Which control has the focus, and whether it, or the button around a file input, has an outline of two pixels.
FOCUS = """(() => {
    const one = document.activeElement;
    const drawn = getComputedStyle(one.type === 'file' ? one.closest('.button') : one);
    return [controls.indexOf(one), drawn.outlineStyle !== 'none' && parseFloat(drawn.outlineWidth) >= 2];
})()"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), [detection("ill"), detection("well", top=0.1)], rejected="bad")


def walked(tab: Tab, *, modifiers: int = 0) -> list[tuple[int, bool]]:
    """As many steps of Tab as there are controls."""
    steps = []
    for _ in range(tab.js(f"{CONTROLS}; controls.length")):
        tab.press("Tab", code=TAB, modifiers=modifiers)
        steps.append(tuple(tab.js(FOCUS)))
    return steps


@pytest.mark.parametrize("name", ["index", "ill"])
def test_every_control_is_reached_by_tab_in_the_order_of_the_page_and_shows_it(tab: Tab, out: Path, name: str) -> None:
    if name == "index":
        tab.open(out / "review" / "index.html")
    else:
        tab.open(out / ScanPage(name).name, ready=READY)
    forth = walked(tab)
    assert [at for at, _ in forth] == list(range(len(forth)))
    assert len(forth) > 10
    assert [at for at, marked in forth if not marked] == []
    back = walked(tab, modifiers=SHIFT)
    assert [at for at, _ in back[:-1]] == list(range(len(forth) - 2, -1, -1)), "no control keeps the focus"


def test_the_sliders_follow_a_window_that_is_chosen_in_the_images(tab: Tab, out: Path) -> None:
    """NiiVue sets it where the right mouse button drags a box, and takes it back after a double or long touch."""
    tab.open(out / ScanPage("ill").name, ready=READY)
    ends = tab.js(
        "(() => { const { nv } = medvae.viewer; Object.assign(nv.volumes[0], { cal_min: 90, cal_max: 130 });"
        " nv.onIntensityChange(nv.volumes[0]);"
        " return ['black', 'white'].map((id) => Number(document.getElementById(id).value)); })()"
    )
    assert ends == pytest.approx([90, 130], abs=1)


def test_a_finger_moves_the_cross_hair(tab: Tab, out: Path) -> None:
    tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
    tab.open(out / ScanPage("ill").name, ready=READY)
    tab.js("[...document.querySelectorAll('#views button')].find((one) => one.textContent === 'axial').click()")
    before, after = np.array(tab.js("medvae.viewer.here().index")), np.array([6, 5, 0])
    after[2] = before[2]
    tab.js(f"medvae.viewer.goToVoxel({after.tolist()})")
    x, y = tab.js(
        "(() => { const { nv } = medvae.viewer; const [x, y] = nv.frac2canvasPos([...nv.scene.crosshairPos]);"
        " const box = nv.canvas.getBoundingClientRect();"
        " return [box.left + x * box.width / nv.canvas.width, box.top + y * box.height / nv.canvas.height]; })()"
    )
    tab.js(f"medvae.viewer.goToVoxel({before.tolist()})")
    for _ in range(3):  # a machine that is busy makes a touch long, which is another gesture
        tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        time.sleep(1)
        if tab.js("medvae.viewer.here().index") == after.tolist():
            break
    tab.wait(f"String(medvae.viewer.here().index) === '{','.join(map(str, after))}'")
    tab.open(out / ScanPage("ill").name, ready=READY)  # anew: two touches in quick succession mean something else
    tab.js("[...document.querySelectorAll('#views button')].find((one) => one.textContent === 'axial').click()")
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x + 40, "y": y}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.wait(f"![{before[0]}, {after[0]}].includes(medvae.viewer.here().index[0])")
    assert tab.js("[scrollX, scrollY]") == [0, 0], "the page stays where it is"
