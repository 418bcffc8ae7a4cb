"""The pages in headless Chromium, from files: what a reader sees and does."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from chromium import Browser, Tab, executable
from made_review import LESION, LIMITS, PEAKS, detection, make_run
from matplotlib.image import imread

from medvae.anomaly.detection import Score
from medvae.evaluation.verdicts import read_verdicts
from medvae.review.filling import assets
from medvae.review.healthy import Readings
from medvae.review.scan_page import ScanPage

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium (Debian: apt-get install chromium)")

EVIL = "<img src=x onerror=alert(1)>"
READY = "document.documentElement?.dataset.ready === 'true'"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [
        detection("ill", montage=True),
        detection("well", top=0.1),
        detection(EVIL, top=2.0),
        detection("chest", units="HU"),
    ]
    return make_run(tmp_path_factory.mktemp("run"), made, rejected="bad <b>one</b>")


def page(out: Path, name: str) -> Path:
    return out / ScanPage(name).name


def settle(tab: Tab) -> None:
    """Until what was changed is drawn."""
    tab.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))")


def pixels(tab: Tab) -> np.ndarray[Any, Any]:
    settle(tab)
    return imread(io.BytesIO(tab.picture()))[..., :3] * 255


def at_cross(tab: Tab) -> np.ndarray[Any, Any]:
    """The colour under the cross-hair, in the gap of its lines, with one plane shown."""
    tab.js("document.querySelectorAll('[data-outline]').forEach((box) => { if (box.checked) box.click(); })")
    tab.js("[...document.querySelectorAll('#views button')].find((one) => one.textContent === 'axial').click()")
    settle(tab)
    where = "(() => { const { nv } = medvae.viewer; const [x, y] = nv.frac2canvasPos([...nv.scene.crosshairPos]);"
    x, y = tab.js(
        f"{where} const box = nv.canvas.getBoundingClientRect();"
        " return [box.left + x * box.width / nv.canvas.width, box.top + y * box.height / nv.canvas.height]; })()"
    )
    return pixels(tab)[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].mean(axis=(0, 1))


@pytest.mark.parametrize("units", ["a.u.", "HU"])
def test_the_pseudo_healthy_image_has_the_values_of_its_file(tab: Tab, tmp_path: Path, units: str) -> None:
    """The page holds what was changed only; the scan's grey values are its own again afterwards."""
    found = detection("ill", units=units)
    estimate = found.picture.scan.copy()
    estimate[LESION] -= 55
    made = make_run(tmp_path, [replace(found, pseudo_healthy=estimate)])
    tab.open(page(made, "ill"), ready=READY)
    before = tab.js("medvae.viewer.here()")
    assert before["file"] == list(LESION)
    for name, expected in (("pseudo-healthy", before["scan"] - 55), ("difference", 55), ("scan", before["scan"])):
        press_button(tab, name)
        tab.wait(f"Math.abs(medvae.viewer.here().scan - {expected}) < 1.5")
        assert tab.js("document.querySelector('#black').disabled") == (name == "difference")
    tab.js("document.activeElement.blur()")
    tab.press("g")
    tab.wait(f"Math.abs(medvae.viewer.here().scan - {before['scan'] - 55}) < 1.5")
    settle(tab)
    tab.js("medvae.viewer.goToVoxel([9, 9, 9])")
    there = tuple(tab.js("medvae.viewer.here().file"))
    tab.wait("document.querySelector('#readout').textContent.includes('pseudo-healthy')")
    assert tab.js("medvae.viewer.here().scan") == pytest.approx(float(estimate[there]), abs=1)


def press_button(tab: Tab, name: str) -> None:
    tab.js(f"[...document.querySelectorAll('button')].find((one) => one.textContent === {json.dumps(name)}).click()")


def test_the_difference_is_grey_where_nothing_was_changed_and_bright_where_the_scan_is_brighter(
    tab: Tab, tmp_path: Path
) -> None:
    found = detection("ill")
    estimate = found.picture.scan.copy()
    estimate[LESION] -= 55
    tab.open(page(make_run(tmp_path, [replace(found, pseudo_healthy=estimate)]), "ill"), ready=READY)
    press_button(tab, "difference")
    tab.wait("document.querySelector('#readout').textContent.includes('difference')")
    tab.js("document.activeElement.blur()")
    tab.press("h")
    lesion = at_cross(tab)
    tab.js("medvae.viewer.goToVoxel([9, 9, 9])")
    assert at_cross(tab) == pytest.approx(np.full(3, 127.5), abs=4)
    assert lesion.mean() > 180


def test_the_page_has_the_words_of_the_picture(tab: Tab, out: Path, tmp_path: Path) -> None:
    bare = replace(detection("bare"), n=0, status="uncalibrated, n=0")
    unknown = replace(bare.candidates, threshold=np.inf, level=np.inf, each=())
    no_p = {name: Score(one.score, None) for name, one in bare.scores.items()}
    bare = replace(bare, candidates=unknown, scores=no_p)
    alone = make_run(tmp_path, [bare])
    for found, run in ((detection("ill"), out), (detection("well", top=0.1), out), (bare, alone)):
        tab.open(page(run, found.id), ready=READY)
        assert f"{text(tab, '#finding')} {text(tab, '#basis')}".startswith(found.candidates.in_words("nats", shown=3))
        assert ("no p: " if found is bare else found._p_in_words()) in text(tab, "#summary")


def text(tab: Tab, selector: str) -> str:
    return str(tab.js(f"document.querySelector({json.dumps(selector)}).textContent"))


def change(tab: Tab, selector: str, value: str) -> None:
    """Set a control as a reader does."""
    tab.js(
        f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.value = {json.dumps(value)};"
        " for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind)); })()"
    )


def test_the_worklist_is_sorted_filtered_and_walked_by_keyboard(tab: Tab, out: Path) -> None:
    tab.open(out / "review" / "index.html")
    ids = "[...document.querySelectorAll('#worklist tbody tr th')].map((cell) => cell.textContent)"
    assert tab.js(ids) == [EVIL, "chest", "ill", "well", "bad <b>one</b>"], "small p first, then high scores"
    assert tab.js("document.querySelectorAll('#worklist img').length") == 4
    tab.js("[...document.querySelectorAll('thead button')].find((one) => one.textContent === 'Scan').click()")
    assert tab.js(ids) == sorted([EVIL, "bad <b>one</b>", "chest", "ill", "well"], key=str.lower)
    tab.press("/")
    for letter in "ill":
        tab.press(letter)
    assert tab.js(ids) == ["ill"]
    tab.js("document.activeElement.value = ''; document.activeElement.dispatchEvent(new Event('input'))")
    change(tab, "#which", "bad")
    assert tab.js(ids) == ["bad <b>one</b>"]
    assert "use a model trained on that modality" in text(tab, "#worklist tbody")
    change(tab, "#which", "all")
    tab.js("document.activeElement.blur()")
    for _ in range(4):
        tab.press("ArrowDown", code=40)
    tab.press("k")
    assert tab.js("document.activeElement.querySelector('th').textContent") == "chest"
    tab.press("Enter", code=13)
    tab.wait(f"location.pathname.endsWith('/chest.html') && {READY}")
    assert tab.js("document.querySelector('#next').href").endswith("/ill.html")
    tab.open(out / "review" / "index.html")
    assert tab.js(ids) == [EVIL, "chest", "ill", "well", "bad <b>one</b>"]
    change(tab, "#filter", "ll")
    assert tab.js(ids) == ["ill", "well"]
    tab.open(page(out, "ill"), ready=READY)
    assert tab.js("document.querySelector('#previous').hidden"), "pages follow each other as the rows that were shown"
    tab.open(page(out, "chest"), ready=READY)
    assert tab.js("document.querySelector('#next').href").endswith("/ill.html"), "a page that was not: as in the run"


def test_a_candidate_takes_the_cross_hair_to_the_voxel_and_value_of_the_file(tab: Tab, out: Path) -> None:
    tab.open(page(out, "ill"), ready=READY)
    tab.js("medvae.viewer.goToVoxel([0, 0, 0])")
    tab.js("document.querySelector('#candidates button').click()")
    here = tab.js("medvae.viewer.here()")
    assert here["file"] == list(LESION)
    assert here["ras"] == pytest.approx(nib.affines.apply_affine(detection("ill").first.affine, LESION), abs=1e-3)
    for number, name in enumerate(LIMITS):
        value = float(np.asarray(nib.load(out / "scans" / "ill" / f"{name}.nii.gz").dataobj)[LESION])
        change(tab, "#map", str(number))
        tab.wait(f"medvae.viewer.state.map.name === '{name}'")
        assert tab.js("medvae.viewer.here().map") == pytest.approx(value, abs=LIMITS[name] / 32 * 1.01)
        assert f"{name} {value:.2g}"[:8] in text(tab, "#readout")
    scan = float(nib.load(out / "scans" / "ill" / "scan.nii.gz").get_fdata()[LESION])
    assert here["scan"] == pytest.approx(scan, abs=1e-3)


def test_colours_are_those_of_the_scale_and_begin_at_the_threshold(tab: Tab, out: Path) -> None:
    tab.open(page(out, "ill"), ready=READY)
    facts = tab.js("JSON.parse(document.querySelector('#facts').textContent)")
    tab.js("medvae.viewer.set({ opacity: 1 })")
    colour = facts["colours"]["table"][round(255 * PEAKS["fused"] / (3 * LIMITS["fused"]))]
    assert at_cross(tab) == pytest.approx(np.array(colour), abs=16)
    change(tab, "#threshold", "9")
    assert at_cross(tab) == pytest.approx(np.array(colour), abs=16), "the scale stays where it is"
    change(tab, "#threshold", "10")
    grey = at_cross(tab)
    assert np.ptp(grey) < 6, "below the threshold there is the scan alone"
    assert "Coloured above 10 nats" in text(tab, "#above")


def bare(tab: Tab) -> None:
    """Nothing over scan and map: no outlines, no cross-hair, no letters."""
    tab.js("document.querySelectorAll('[data-outline]').forEach((box) => box.click())")
    tab.js("Object.assign(medvae.viewer.nv.opts, { crosshairWidth: 0, isOrientationTextVisible: false }); true")


def test_switching_the_map_changes_what_is_seen_and_a_healthy_scan_is_grey(tab: Tab, out: Path) -> None:
    tab.open(page(out, "ill"), ready=READY)
    bare(tab)
    tab.js("medvae.viewer.set({ opacity: 1 })")
    first = pixels(tab)[:780, 20:860]
    tab.js("document.activeElement.blur()")
    tab.press("m")
    tab.wait("medvae.viewer.state.map.name === 'residual_z'")
    second = pixels(tab)[:780, 20:860]
    assert (np.abs(first - second).max(axis=-1) > 20).sum() > 50
    tab.press("h")
    assert np.ptp(pixels(tab)[60:700, 100:800], axis=-1).max() < 30, "without the map all is grey"
    tab.open(page(out, "well"), ready=READY)
    bare(tab)
    tab.js("medvae.viewer.nv.setSliceType(0)")
    assert np.ptp(pixels(tab)[60:700, 100:800], axis=-1).max() < 30


def test_outlines_lie_around_what_they_mark(tab: Tab, out: Path) -> None:
    tab.open(page(out, "ill"), ready=READY)
    settle(tab)
    drawn = tab.js(
        "(() => { const c = document.querySelector('#lines'); const d = c.getContext('2d').getImageData(0, 0, c.width,"
        " c.height).data; const at = medvae.viewer.nv.frac2canvasPos([...medvae.viewer.nv.scene.crosshairPos]);"
        " let near = 0, green = 0; for (let y = 0; y < c.height; y++) for (let x = 0; x < c.width; x++) {"
        " const i = 4 * (y * c.width + x); if (d[i + 3] < 200) continue;"
        " if (d[i + 2] > 200) near += Math.hypot(x - at[0], y - at[1]) < 60; else green++; } return [near, green]; })()"
    )
    assert drawn[0] > 30, "the candidate's outline is near the cross-hair"
    assert drawn[1] > 300, "the template's brain is outlined"


def test_waiting_goes_on_while_a_page_is_left_for_another(tab: Tab, out: Path) -> None:
    """A page that is left while it is asked gives an error: by chance after a click on a link, always here."""
    tab.open(out / "review" / "index.html")
    there = page(out, "ill").resolve().as_uri()
    tab.wait(f"location.href === '{there}' || new Promise(() => location.assign('{there}'))")
    tab.wait(READY)
    assert text(tab, "#title") == "ill"


def test_a_name_that_is_markup_does_nothing(tab: Tab, out: Path) -> None:
    tab.open(page(out, EVIL), ready=READY)
    assert text(tab, "#title") == EVIL
    assert tab.js("document.querySelectorAll('img').length") == 0
    tab.open(out / "review" / "index.html")
    assert tab.js("[...document.querySelectorAll('#worklist img')].every((one) => one.src.startsWith('data:'))")
    link = f"[...document.querySelectorAll('a')].find((one) => one.textContent === {json.dumps(EVIL)})"
    tab.js(f"{{ const link = {link}; setTimeout(() => link.click()); }}")  # answered before the page is left
    tab.wait(f"document.querySelector('#title')?.textContent === {json.dumps(EVIL)} && {READY}")


def test_a_page_loads_its_own_scan_alone(tab: Tab, out: Path) -> None:
    tab.open(page(out, "ill"), ready=READY)
    asked = {url.rsplit("/", 1)[1] for url in tab.requests if url.startswith("file:")}
    assert asked == {"ill.html", "run.js", *assets("scan.html")}


def test_windows_of_ct_are_offered_for_ct_alone(tab: Tab, out: Path) -> None:
    tab.open(page(out, "chest"), ready=READY)
    tab.js("[...document.querySelectorAll('#windows button')].find((one) => one.textContent === 'lung').click()")
    assert tab.js("[medvae.viewer.nv.volumes[0].cal_min, medvae.viewer.nv.volumes[0].cal_max]") == [-1350, 150]
    assert "HU" in text(tab, "#readout")
    tab.open(page(out, "ill"), ready=READY)
    assert tab.js("[...document.querySelectorAll('#windows button')].map((one) => one.textContent)") == ["auto"]


def saved(browser: Browser, tab: Tab, folder: Path) -> Any:
    """The JSON that the page's button gives."""
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    before = set(folder.iterdir())
    tab.js("document.querySelector('#export').click()")
    end = time.monotonic() + 20
    while not (new := [one for one in set(folder.iterdir()) - before if one.suffix == ".json"]):
        assert time.monotonic() < end
        time.sleep(0.02)
    return new[0], json.loads(new[0].read_text("utf-8"))


def given(tab: Tab, file: Path) -> None:
    node = tab.call("DOM.getDocument")["root"]["nodeId"]
    found = tab.call("DOM.querySelector", nodeId=node, selector="#import")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=found, files=[str(file)])


def test_verdicts_are_kept_exported_and_imported(browser: Browser, tab: Tab, out: Path, tmp_path: Path) -> None:
    tab.open(page(out, "ill"), ready=READY)
    tab.js("localStorage.clear(); document.activeElement.blur()")
    tab.press("2")
    assert tab.js("document.querySelector('#candidates select').value") == "normal variant"
    change(tab, "#note", "a <b>vein</b>")
    file, tree = saved(browser, tab, tmp_path)
    (scan,) = tree["scans"]
    assert (scan["id"], scan["candidates"], scan["note"]) == ("ill", {"1": "normal variant"}, "a <b>vein</b>")
    healthy = {detection("ill").source_hash: "healthy"}
    assert Readings.of(file).by_scan == healthy, "calibrate knows the scan and that all is judged"
    assert read_verdicts(file, out).counts["normal variant"] == 1, "and evaluate counts it"
    tab.open(out / "review" / "index.html")
    assert Readings.of(saved(browser, tab, tmp_path)[0]).by_scan == healthy
    row = "[...document.querySelectorAll('tbody tr')].find((one) => one.textContent.includes('ill')).textContent"
    assert "1 of 1 note" in tab.js(row)
    tab.js("localStorage.clear()")
    given(tab, file)
    tab.wait("document.querySelector('#said').textContent.startsWith('1 scan imported')")
    assert "1 of 1 note" in tab.js(row)
    tab.open(page(out, "ill"), ready=READY)
    assert tab.js("document.querySelector('#note').value") == "a <b>vein</b>"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**tree, "scans": [{**scan, "key": "of another run"}]}), "utf-8")
    given(tab, other)
    tab.wait("document.querySelector('#said').textContent.includes('1 left out')")


def test_without_storage_verdicts_last_until_they_are_exported(
    browser: Browser, tab: Tab, out: Path, tmp_path: Path
) -> None:
    closed = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('closed'); } })"
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=closed)
    tab.open(page(out, "ill"), ready=READY)
    assert "export the verdicts before you close" in text(tab, "#said")
    tab.press("1")
    assert saved(browser, tab, tmp_path)[1]["scans"][0]["candidates"] == {"1": "lesion"}


def test_without_webgl2_there_is_the_montage(out: Path) -> None:
    with Browser("--disable-3d-apis") as plain:
        tab = plain.tab()
        tab.open(page(out, "ill"), ready=READY)
        assert "WebGL2" in text(tab, "#why")
        assert tab.js("document.querySelector('#instead img').naturalWidth") == 1600
        assert tab.js("document.querySelector('#controls').hidden")
        tab.press("1")
        assert tab.js("document.querySelector('#candidates select').value") == "lesion"
        assert tab.complaints == []
