"""Lists of a set beside a real one: splits, masks and classes stay what they are; who is held out is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_layouts import COUNT, put, tree, write_set
from toy_model import toy_model

from medvae import find
from medvae.scan import Selection
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.rows import Row
from medvae.synthesis.synthesize import make_layout


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "synthetic"


def test_masks_of_real_scans_are_listed(out: Path, tmp_path: Path) -> None:
    """Without them a training would compute another foreground."""
    put(tmp_path, "a.nii.gz", "masks/a.nii.gz")
    (tmp_path / "list.csv").write_text("scan,mask\na.nii.gz,masks/a.nii.gz\n", "utf-8")
    write_set(out, "medvae", merge_with=tmp_path / "list.csv")
    for listed in ("labels.csv", "dataset.json"):
        (masked,) = (ref for ref in find(out / listed) if ref.mask is not None)
        assert masked.path.name == "a.nii.gz"
        assert masked.mask is not None
        assert masked.mask.resolve() == (tmp_path / "masks" / "a.nii.gz").resolve()


def test_real_scans_that_are_not_trained_on_stay_in_their_split(out: Path, tmp_path: Path) -> None:
    rows = ["scan,split"]
    for name, split in (("a", "train"), ("b", ""), ("v", "val"), ("t", "test"), ("h", "healthy")):
        put(tmp_path, f"{name}.nii.gz", f"maps/{name}.nii.gz")
        rows.append(f"{name}.nii.gz,{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows), "utf-8")
    write_set(out, "medvae", merge_with=tmp_path / "list.csv")
    merged = tree(out / "dataset.json")
    assert (merged["numTraining"], merged["numTest"]) == (len(merged["training"]), 1) == (2 + COUNT, 1)
    for section, name in (("validation", "v"), ("test", "t"), ("healthy", "h")):
        assert [Path(item["image"]).name for item in merged[section]] == [f"{name}.nii.gz"]
        assert all("split" not in item for item in merged[section])
    found = find(Selection(out / "labels.csv", split="train"))
    assert [ref.path.name for ref in found] == ["a.nii.gz", *(f"synthetic-{i:05d}.nii.gz" for i in range(COUNT))]
    assert len(find(out / "labels.csv")) == 5 + COUNT


@pytest.mark.parametrize("layout", ["medvae", "monai"])
@pytest.mark.parametrize(("sampler", "count"), [("classical", 1), ("density", COUNT)])
def test_samples_of_people_who_are_held_out_are_told(
    layout: str, sampler: str, count: int, out: Path, tmp_path: Path
) -> None:
    """A decoded sample holds everyone that the decoder has seen; `classical` takes each donor in turn."""
    for name in ("scan-00", "scan-01"):
        put(tmp_path, f"{name}.nii.gz", f"maps/{name}.nii.gz")
    model = toy_model(n=4, label_maps=True)
    settings = AugmentSettings(sampler=sampler, layout=layout)
    rows = [Row(f"s{i}", {}, {"sources": f"scan-0{i}" if count == 1 else ""}) for i in range(COUNT)]
    for held_out in (True, False):
        (tmp_path / "list.csv").write_text(f"scan,split\nscan-00.nii.gz,{'val' if held_out else 'train'}\n", "utf-8")
        validation = [{"image": "./scan-00.nii.gz"}] if held_out else []
        (tmp_path / "dataset.json").write_text(json.dumps({"training": [], "validation": validation}), "utf-8")
        real = tmp_path / ("list.csv" if layout == "medvae" else "")
        lines = make_layout(generate.fit(model, settings, seed=0), merge_with=real).lines(rows)
        said = [f"{count} of {COUNT} samples hold the data of real scans that are not listed for training"]
        assert [line.partition(",")[0] for line in lines] == (said if held_out else [])


@pytest.mark.parametrize("layout", ["medvae", "monai"])
def test_a_class_has_one_number_whatever_samples_there_are(layout: str, out: Path) -> None:
    """Lists of one model are joined."""
    settings = AugmentSettings(sampler="classical", layout=layout)
    made = make_layout(generate.fit(toy_model(n=8, labels=("a", "b")), settings, seed=0))
    facts = {"image": "i.nii.gz", "label_map": None, "class": "b", "subject": "s", "sources": ""}
    next(file for file in made.lists([Row("s", {}, facts)], out) if file.name == "dataset.json").write(out)
    assert tree(out / "dataset.json")["classes"] == ["a", "b"]
    assert tree(out / "dataset.json")["training"][0]["label"] == 1
