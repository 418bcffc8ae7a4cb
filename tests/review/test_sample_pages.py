"""The pages of synthetic sets: on the disk, in headless Chromium, and what a reader's verdicts leave of a set."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import time
from base64 import b64decode
from io import BytesIO
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from made_review import detection, make_run
from made_samples import LABEL_AT, NEAREST, make_set
from matplotlib.image import imread

from medvae.cli.main import main
from medvae.errors import InputError
from medvae.pipelines import review
from medvae.review.sample_page import SamplePage

if TYPE_CHECKING:
    from pathlib import Path

    from chromium import Browser, Tab

EVIL = "<img src=x onerror=alert(2)>"
READY = "document.documentElement?.dataset.ready === 'true'"


def page_of(out: Path, name: str) -> Path:
    return out / "review" / "scans" / f"{name}.html"


def element(page: Path, name: str) -> str:
    found = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return found[1] if found else ""


def volume(page: Path, name: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(element(page, f"volume_{name}"))))


def exported(out: Path, **verdicts: str) -> str:
    """A file of verdicts by the id of a sample, as the pages write it."""
    keys = {name: json.loads(element(page_of(out, name), "facts"))["key"] for name in verdicts}
    scans = [{"id": name, "key": keys[name], "note": "", "candidates": {}, "verdict": verdicts[name]} for name in keys]
    return json.dumps({"format": "medvae-verdicts", "version": 1, "scans": scans})


def test_a_page_holds_the_voxels_and_labels_of_its_files(tmp_path: Path) -> None:
    out = make_set(tmp_path, ["s"])
    facts, scan, marks = (
        json.loads(element(page_of(out, "s"), "facts")),
        *(volume(page_of(out, "s"), name) for name in ("scan", "marks")),
    )
    image, labels = (nib.load(out / name / "s0.nii.gz") for name in ("images", "labels"))
    index = np.argwhere(np.ones(scan.shape, bool))
    own = tuple(np.rint(nib.affines.apply_affine(np.array(facts["grid"]["to_file"]), index)).astype(int).T)
    assert np.abs(scan.get_fdata().ravel() - image.get_fdata()[own]).max() <= facts["scan"]["step"] / 2 * 1.001
    bits = {0: 0, **{int(value): bit for value, bit in facts["marks"].items()}}
    assert [bits[int(value)] for value in labels.get_fdata()[own]] == np.asarray(marks.dataobj).ravel().tolist()
    assert set(bits) == {0, 1, 2}


def test_review_writes_the_same_pages_from_what_is_on_the_disk(tmp_path: Path) -> None:
    out = make_set(tmp_path, ["a", "b"], rejected="c")
    there = {path.relative_to(out): path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()}
    shutil.rmtree(out / "review")
    assert main(["review", str(out), "--quiet"]) == 0
    assert {path.relative_to(out): path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()} == there
    text = (out / "review" / "run.js").read_text("utf-8")
    rows = json.loads(text.partition("medvaeRun = ")[2].rstrip().rstrip(";"))["rows"]
    assert [(row["id"], row.get("page"), row.get("copy")) for row in rows] == [
        ("a", True, "yes"),
        ("b", True, "no"),
        ("c", None, None),
    ]


def test_a_page_holds_a_real_scan_only_where_one_was_kept(tmp_path: Path) -> None:
    without, kept = make_set(tmp_path / "0", ["a"]), make_set(tmp_path / "1", ["a"], real=True)
    assert element(page_of(without, "a"), "volume_nearest") == ""
    assert volume(page_of(kept, "a"), "nearest").get_fdata().max() == 255
    shutil.rmtree(kept / "review" / "nearest")
    review.run(kept)
    assert element(page_of(kept, "a"), "volume_nearest") == ""


def test_no_path_in_the_manifest_leads_out_of_the_folder(tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", ["a", "b"])
    shutil.copy(out / "images" / "s0.nii.gz", tmp_path / "other.nii.gz")
    lines = (out / "manifest.jsonl").read_text("utf-8")
    (out / "manifest.jsonl").write_text(lines.replace("images/s0.nii.gz", "../other.nii.gz"), "utf-8")
    done = review.run(out)
    assert (done.pages, done.without) == (("b",), ("a",))


def test_the_picture_shows_right_and_nose_on_the_left(tmp_path: Path) -> None:
    out = make_set(tmp_path, ["a"])
    image = nib.load(out / "images" / "s0.nii.gz")
    values = image.get_fdata()
    values[values > 0] = 50
    values[14:20, 8:12, 7:10] = 200  # on the patient's right
    nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), out / "images" / "s0.nii.gz")
    review.run(out)
    picture = imread(BytesIO(b64decode(SamplePage("a", {}, {}, ()).picture(out))))
    axial = picture[:, : picture.shape[1] // 3]
    bright = np.argwhere(axial > 0.9)
    assert bright[:, 1].mean() < 0.4 * axial.shape[1]


# ---------------------------------------------------------------------------------------------------- verdicts


def test_verdicts_filter_the_lists_of_the_set(tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", ["a", "b", "c"])
    (tmp_path / "said.json").write_text(exported(out, a="reject", b="accept"), "utf-8")
    assert main(["review", str(out), "--verdicts", str(tmp_path / "said.json"), "--quiet"]) == 0
    with open(out / "accepted.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"] for row in rows] == ["real.nii.gz", "images/s1.nii.gz"], "real scans stay; no verdict is no yes"
    tree = json.loads((out / "accepted.json").read_text("utf-8"))
    assert [one["image"] for one in tree["training"]] == ["real.nii.gz", "images/s1.nii.gz"]
    assert tree["numTraining"] == 2
    done = review.run(out, verdicts=tmp_path / "said.json")
    assert "1 accepted, 1 rejected, 1 without a verdict" in done.lines[1]


def test_rejected_samples_stay_out_of_the_lists_when_their_files_have_been_deleted(tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", ["a", "b", "c"])
    (tmp_path / "said.json").write_text(exported(out, a="accept", b="reject", c="reject"), "utf-8")
    review.run(out, verdicts=tmp_path / "said.json")
    before = [(out / name).read_bytes() for name in ("accepted.csv", "accepted.json")]
    for name in ("s1", "s2"):
        (out / "images" / f"{name}.nii.gz").unlink()
    done = review.run(out, verdicts=tmp_path / "said.json")
    assert [(out / name).read_bytes() for name in ("accepted.csv", "accepted.json")] == before
    assert b"s1" not in before[0] + before[1]
    assert "1 accepted, 0 rejected, 0 without a verdict (left out, too), 2 without an image" in done.lines[1]
    assert "2 verdicts left out: of images that are gone, of other scans or another run" in done.lines


def test_verdicts_on_another_image_are_refused(tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", ["a"])
    (tmp_path / "said.json").write_text(exported(out, a="accept"), "utf-8")
    image = nib.load(out / "images" / "s0.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata() * 2, image.affine), out / "images" / "s0.nii.gz")
    with pytest.raises(InputError, match="no verdicts on scans of this set"):
        review.run(out, verdicts=tmp_path / "said.json")
    assert not (out / "accepted.csv").exists()


def test_an_option_of_another_command_is_refused(tmp_path: Path) -> None:
    (tmp_path / "said.json").write_text("{}", "utf-8")
    with pytest.raises(InputError, match="give truth= for a run of detect"):
        review.run(make_set(tmp_path / "set", ["a"]), truth=tmp_path)
    with pytest.raises(InputError, match="verdicts= for one of augment"):
        review.run(make_run(tmp_path / "run", [detection("a")]), verdicts=tmp_path / "said.json")


# --------------------------------------------------------------------------------------------------- in a browser


def text(tab: Tab, selector: str) -> Any:
    return tab.js(f"document.querySelector({json.dumps(selector)}).textContent")


def test_a_verdict_is_exported_imported_and_filters_the_set(browser: Browser, tab: Tab, tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", ["a", EVIL], rejected="c <b>d</b>")
    (tmp_path / "down").mkdir()
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "down"))
    tab.open(out / "review" / "index.html")
    ids = "[...document.querySelectorAll('#worklist tbody tr th')].map((cell) => cell.textContent)"
    assert tab.js(ids) == ["a", EVIL, "c <b>d</b>"], "the likeliest copies first"
    assert tab.js("document.querySelectorAll('#worklist img').length") == 2, "no name became markup"
    assert "near-copy" in text(tab, "#worklist tbody tr")
    tab.open(page_of(out, "a"), ready=READY)
    assert NEAREST in text(tab, "#summary")
    assert "p1 (60%), p2 (40%)" in text(tab, "#origin")
    tab.press("2")
    assert tab.js("document.querySelector('#verdict [aria-pressed=true]').textContent") == "reject"
    tab.open(out / "review" / "index.html")
    tab.js("document.querySelector('#rest').click()")
    tab.js("document.querySelector('#export').click()")
    end = time.monotonic() + 60
    while not (found := list((tmp_path / "down").glob("*.json"))):
        assert time.monotonic() < end
        tab.js("1")
    said = found[0].read_text("utf-8")
    assert {one["id"]: one["verdict"] for one in json.loads(said)["scans"]} == {"a": "reject", EVIL: "accept"}
    tab.js("localStorage.clear()")
    tab.open(out / "review" / "index.html")
    document = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", nodeId=document, selector="#import")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(found[0])])
    tab.wait("document.querySelector('#said').textContent.startsWith('2 scans imported')")
    assert "rejected" in text(tab, "#worklist tbody tr")
    review.run(out, verdicts=found[0])
    assert (out / "accepted.csv").read_text("utf-8").splitlines()[2:] == [f"images/s1.nii.gz,{EVIL},a,,yes,"]


def test_labels_are_outlined_and_the_real_scan_replaces_the_synthetic_one(tab: Tab, tmp_path: Path) -> None:
    out = make_set(tmp_path, ["a"], real=True)
    tab.open(page_of(out, "a"), ready=READY)
    names = "[...document.querySelectorAll('#outlines label')].map((one) => one.textContent.trim())"
    assert tab.js(names) == ["label 1", "posterior"]
    to_file = np.array(tab.js("JSON.parse(document.querySelector('#facts').textContent).grid.to_file"))
    place = np.rint(np.linalg.inv(to_file) @ [*LABEL_AT, 1])[:3].astype(int).tolist()
    tab.js(f"medvae.viewer.goToVoxel({place})")
    here = tab.js("medvae.viewer.here()")
    assert here["file"] == list(LABEL_AT)
    own = nib.load(out / "images" / "s0.nii.gz").get_fdata()[LABEL_AT]
    assert here["scan"] == pytest.approx(own, abs=0.5)
    assert "patient" in text(tab, "#patient")
    tab.press("r")
    tab.wait("medvae.viewer.here().scan > 200")
    assert "real scan" in text(tab, "#readout")
    tab.press("r")
    tab.wait("document.querySelector('#readout').textContent.startsWith('synthetic')")
    assert tab.js("medvae.viewer.here()")["scan"] == pytest.approx(own, abs=0.5)
