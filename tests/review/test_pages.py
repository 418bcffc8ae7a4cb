"""The pages on the disk: what is in them is what the files hold, and no name can become markup."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from made_review import LESION, LIMITS, detection, make_run, oblique

from medvae.cli.main import main
from medvae.errors import InputError
from medvae.pipelines import review
from medvae.review.filling import assets, filled, json_text, remove_pages
from medvae.review.frame import Frame
from medvae.review.grey import Grey
from medvae.review.scan_page import ScanPage, quantised
from medvae.scan import Geometry

EVIL = "<img src=x onerror=alert(1)>"
TEMPLATES = ("index.html", "scan.html", "samples.html", "sample.html", "training.html")
AFFINES = {"RAS": np.diag([2.0, 2, 3, 1]), "LPS": np.diag([-2.0, -2, 3, 1]), "oblique": oblique()}


def element(page: Path, name: str) -> str:
    found = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def facts(page: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(element(page, "facts"))
    return tree


def volume(page: Path, name: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(element(page, f"volume_{name}"))))


def page_of(out: Path, name: str) -> Path:
    return out / ScanPage(name).name


@pytest.mark.parametrize("name", AFFINES)
def test_every_voxel_is_the_files_within_half_a_step_and_at_its_place(name: str, tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a", affine=AFFINES[name])])
    page = page_of(out, "a")
    told = facts(page)
    for number, key in enumerate(LIMITS):
        shown, file = volume(page, str(number)), nib.load(out / "scans" / "a" / f"{key}.nii.gz")
        values = np.asarray(file.dataobj)
        index = np.argwhere(np.ones(shown.shape, bool))
        world = nib.affines.apply_affine(shown.affine, index)
        there = np.linalg.inv(file.affine)
        own = np.rint(nib.affines.apply_affine(there, world)).astype(int)
        assert np.abs(nib.affines.apply_affine(file.affine, own) - world).max() < 1e-3
        to_file = np.rint(nib.affines.apply_affine(np.array(told["grid"]["to_file"]), index)).astype(int)
        assert (to_file == own).all()
        step = told["maps"][number]["step"]
        assert step == pytest.approx(LIMITS[key] / 16)
        assert np.abs(np.asarray(shown.dataobj).ravel() - values[tuple(own.T)]).max() <= step / 2 * 1.0001
        axes = "".join(nib.aff2axcodes(shown.affine))
        assert axes == "RAS"
        inside = np.asarray(nib.load(out / "scans" / "a" / "coverage.nii.gz").dataobj) > 0
        assert told["maps"][number]["above"] == pytest.approx((values[inside] > LIMITS[key]).mean())
    assert np.allclose(told["grid"]["affine"], volume(page, "scan").affine, atol=1e-4)


def test_the_page_shows_what_was_evaluated_and_a_margin(tmp_path: Path) -> None:
    inside = np.zeros((40, 40, 40), bool)
    inside[20:24, 18:22, 20] = True
    frame = Frame.around(inside, Geometry(inside.shape, np.diag([2.0, -2, 4, 1])))
    assert frame.geometry.shape == (4 + 8, 4 + 8, 1 + 4)
    assert frame.cut(inside).sum() == inside.sum()
    whole = Frame.around(np.zeros((5, 6, 7), bool), Geometry((5, 6, 7), np.eye(4)))
    assert whole.geometry.shape == (5, 6, 7)


def test_colours_steps_and_limits_are_the_same_in_all_scans_of_a_run(tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("healthy", top=0.1), detection("ill", top=3.0)])
    healthy, ill = (facts(page_of(out, name)) for name in ("healthy", "ill"))
    assert healthy["colours"] == ill["colours"]
    assert [(one["limit"], one["step"]) for one in healthy["maps"]] == [
        (one["limit"], one["step"]) for one in ill["maps"]
    ]
    assert (np.asarray(volume(page_of(out, "healthy"), "0").dataobj) < LIMITS["fused"]).all(), "nothing is coloured"


def test_a_map_far_beyond_its_limit_takes_two_bytes_and_then_larger_steps() -> None:
    values = np.array([[[0.0, 1.0, 7.9]]], np.float32)
    assert quantised(values, 1.0).data.dtype == np.uint8
    assert quantised(10 * values, 1.0).data.dtype == np.int16
    for times in (1, 10, 1e5):
        grey = quantised(np.float32(times) * values, 1.0)
        assert np.abs(grey.values - times * values).max() <= grey.scale[0] * 0.5001
        assert grey.values[0, 0, 0] == 0
    assert quantised(values, 0.0).scale[0] > 0, "a map without a limit"


def test_ct_keeps_hounsfield_units_and_all_else_has_256_grey_values() -> None:
    rng = np.random.default_rng(0)
    data = rng.uniform(-1000, 1500, (9, 9, 9)).astype(np.float32)
    covered = np.ones(data.shape, bool)
    assert np.abs(Grey.of(data, covered, units="HU").values - data).max() <= 0.5
    grey = Grey.of(data, covered, units="a.u.")
    assert grey.data.dtype == np.uint8
    assert np.abs(grey.values - data).max() <= grey.scale[0] * 0.501
    bright = data.copy()
    bright[0, 0, 0] = 1e6
    assert Grey.of(bright, covered & (bright < 1e5), units="a.u.").scale[0] < 20, (
        "one voxel does not take all grey values"
    )
    padded = data.copy()
    padded[0] = -32768
    assert Grey.of(padded, padded > -32768, units="a.u.").scale[0] < 25, "nor does padding"
    low, high = grey.window(covered)
    assert low == pytest.approx(np.percentile(data, 0.5), abs=grey.scale[0])
    assert high == pytest.approx(np.percentile(data, 99.5), abs=grey.scale[0])
    assert Grey.of(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), bool), units="a.u.").values.max() == 0


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection(EVIL), detection("b")], rejected=f"bad {EVIL}")
    for page in (page_of(out, EVIL), out / "review" / "index.html", out / "review" / "run.js"):
        assert "<img" not in page.read_text("utf-8")
    assert facts(page_of(out, EVIL))["id"] == EVIL
    assert json.loads(json_text({"a": "</script>&"})) == {"a": "</script>&"}
    with pytest.raises(ValueError, match="markup"):
        filled("scan.html", {"facts": "</script>"})
    with pytest.raises(ValueError, match="markup"):
        filled("scan.html", {'"><script>': ""})


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_page_may_load_nothing_but_files_beside_it(name: str) -> None:
    text = filled(name, {})
    assert "default-src 'none'" in text
    assert "unsafe" not in text
    assert "http:" not in text
    assert "https:" not in text
    assert all('src="' in tag for tag in re.findall("<script[^>]*>", text)), "no script but from a file"
    assert not re.findall(r"\son\w+=", text)
    assert "Research use only" in text


def test_templates_share_what_is_the_same_in_them() -> None:
    page = files("medvae.review") / "page"
    templates = {one.name: one.read_text("utf-8") for one in page.iterdir() if one.name.endswith(".html")}
    assert {name for name in templates if name[0] != "_"} == set(TEMPLATES)
    for words in ("Content-Security-Policy", 'id="note"', 'id="screen"', 'id="black"'):
        assert sum(words in text for text in templates.values()) == 1, words
    for name in TEMPLATES:
        assert not re.findall(r"<!-- (?!data)", filled(name, {})), "every part is there"


def test_no_script_of_ours_makes_markup_from_text() -> None:
    for name in assets(*TEMPLATES):
        if name.endswith(".js") and name != "niivue.js":
            text = (files("medvae.review") / "page" / name).read_text("utf-8")
            assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), name


def test_niivue_is_the_one_that_the_notice_names() -> None:
    notice = (Path(__file__).parents[2] / "NOTICE").read_text("utf-8")
    digest = sha256((files("medvae.review") / "page" / "niivue.js").read_bytes()).hexdigest()
    assert digest in notice
    assert "niivue 0.69.0" in notice.lower()


def test_review_writes_the_same_pages_from_what_is_on_the_disk(tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a"), detection("b", top=0.1)], rejected="c")
    there = {path.relative_to(out): path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()}
    shutil.rmtree(out / "review")
    assert main(["review", str(out), "--quiet"]) == 0
    assert {path.relative_to(out): path.read_bytes() for path in (out / "review").rglob("*") if path.is_file()} == there
    assert len(there) == len(assets("index.html", "scan.html")) + 4


def test_the_truth_is_outlined_where_it_is_given(tmp_path: Path) -> None:
    found = detection("a")
    out = make_run(tmp_path / "out", [found])
    truth = np.zeros(found.coverage.shape, np.uint8)
    truth[LESION] = 1
    (tmp_path / "truth").mkdir()
    nib.save(nib.Nifti1Image(truth, found.first.affine), tmp_path / "truth" / "a.nii.gz")
    assert set(facts(page_of(out, "a"))["marks"]) == {"brain", "candidates"}
    assert set(facts(page_of(make_run(tmp_path / "well", [detection("a", top=0.1)]), "a"))["marks"]) == {"brain"}
    with pytest.raises(InputError, match="no such folder of masks"):
        review.run(out, truth=tmp_path / "nosuch")
    shutil.copy(tmp_path / "truth" / "a.nii.gz", tmp_path / "truth" / "mr-b.nii.gz")
    told = review.run(out, truth=tmp_path / "truth").lines
    assert "masks of lesions: 1 of 1 scan" in told
    assert "1 mask belongs to no scan that has maps: mr-b.nii.gz" in told
    page = page_of(out, "a")
    bit = facts(page)["marks"]["truth"]
    marked = np.argwhere(np.asarray(volume(page, "marks").dataobj).astype(int) & bit)
    to_file = np.array(facts(page)["grid"]["to_file"])
    assert [tuple(np.rint(to_file[:3] @ [*one, 1]).astype(int)) for one in marked] == [LESION]


def test_scans_without_a_picture_have_a_row_but_no_page(tmp_path: Path) -> None:
    out = make_run(tmp_path, [detection("a"), detection("b")])
    shutil.rmtree(out / "review")
    (out / "scans" / "b" / "scan.nii.gz").unlink()
    done = review.run(out)
    assert (done.pages, done.without) == (("a",), ("b",))
    assert "pass overwrite=True and set detect.review=true" in done.lines[-1], "detect refuses other settings without"
    rows = {row["id"]: row for row in _run(out)["rows"]}
    assert (rows["a"]["page"], rows["b"]["page"]) == (True, False)


def _run(out: Path) -> dict[str, Any]:
    text = (out / "review" / "run.js").read_text("utf-8")
    tree: dict[str, Any] = json.loads(text.partition("medvaeRun = ")[2].rstrip().rstrip(";"))
    return tree


def test_the_worklist_knows_score_candidates_q_and_why_a_scan_was_rejected(tmp_path: Path) -> None:
    run = _run(make_run(tmp_path, [detection("a"), detection("b", top=0.1)], rejected="c"))
    a, b, c = run["rows"]
    assert (a["candidates"], a["volume_ml"], a["p"], a["unit"]) == (1, 1.5, 0.1, "nats")
    assert (b["candidates"], b["warnings"]) == (0, [])
    assert (c["status"], c["code"], c["hint"]) == ("rejected", "wrong_modality", "use a model trained on that modality")
    assert run["q"] == {"a": {"1": 0.2}}  # b was searched, too
    assert run["card"]["model"]["training"] == 18
    assert "Research use only" in run["notice"]


def test_another_result_of_a_scan_has_another_key(tmp_path: Path) -> None:
    once, again = (make_run(tmp_path / str(n), [detection("a", top=top)]) for n, top in enumerate((1.0, 1.1)))
    assert facts(page_of(once, "a"))["key"] != facts(page_of(again, "a"))["key"]
    assert facts(page_of(once, "a"))["key"] == _run(once)["rows"][0]["key"]


def test_what_is_no_run_of_detect_is_refused_and_no_id_leads_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an output folder"):
        review.run(tmp_path)
    out = make_run(tmp_path / "out", [detection("a")])
    shutil.copytree(out / "scans" / "a", tmp_path / "elsewhere")
    with open(out / "manifest.jsonl", encoding="utf-8") as file:
        line = file.read().replace('"id": "a"', '"id": "../../elsewhere"')
    with open(out / "manifest.jsonl", "a", encoding="utf-8") as file:
        file.write(line)
    assert review.run(out).pages == ("a",)


def test_pages_are_made_without_torch() -> None:
    code = "import sys, medvae.pipelines.review; sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_window_lies_at_the_percentiles_of_what_was_evaluated() -> None:
    rng = np.random.default_rng(0)
    data, covered = rng.integers(3, 250, (9, 8, 7)).astype(np.uint8), rng.random((9, 8, 7)) > 0.4
    low, high = np.percentile(data[covered], (0.5, 99.5))
    assert Grey(data, (2.0, -1.0)).window(covered) == pytest.approx((low * 2 - 1, high * 2 - 1))
    assert Grey(data.astype(np.int16), (2.0, -1.0)).window(covered) == pytest.approx((low * 2 - 1, high * 2 - 1))


def test_pages_are_removed_and_what_a_reader_left_beside_them_stays(tmp_path: Path) -> None:
    out = make_run(tmp_path / "out", [detection("a")])
    (out / "review" / "verdicts.json").write_text("{}", "utf-8")
    remove_pages(out)
    assert [path.name for path in (out / "review").rglob("*")] == ["verdicts.json"]
    other = make_run(tmp_path / "other", [detection("a")])
    remove_pages(other)
    remove_pages(other)
    assert not (other / "review").exists()
    assert (other / "scans" / "a" / "scan.nii.gz").is_file()
