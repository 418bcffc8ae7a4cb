"""Which scans a training that is resumed learns from: those that it began with, whatever can be used now."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from medvae.checkpoint.folder import load
from medvae.errors import OutputError
from medvae.pipelines import train as pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.run.work import Progress

Blocks = tuple["Path", "Path"]


def train(blocks: Blocks, out: Path, *, fails: str = "", stops: str = "", resume: bool = False) -> Model:
    """A training in which one scan fails for want of memory, and which is stopped after three steps of a stage."""
    stored = pipeline._stored

    def failing(ref: object, *args: object, **more: object) -> object:
        if getattr(ref, "id", None) == fails:
            raise MemoryError
        return stored(ref, *args, **more)  # type: ignore[arg-type]

    def stop(progress: Progress) -> None:
        if (progress.stage, progress.done) == (stops, 3):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_stored", failing)
        return pipeline.train(blocks[0], config=blocks[1], out=out, resume=resume, on_progress=stop)


def test_a_scan_that_failed_at_the_beginning_stays_out(blocks: Blocks, tmp_path: Path) -> None:
    undisturbed = train(blocks, tmp_path / "undisturbed", fails="s3")
    with pytest.raises(KeyboardInterrupt):
        train(blocks, tmp_path / "cut", fails="s3", stops="train")
    rest = train(blocks, tmp_path / "cut", resume=True)
    assert rest.hash == undisturbed.hash
    assert rest.latents.ids == ["s0", "s1", "s2", "s4", "s5"]
    lines = (tmp_path / "cut" / "manifest.jsonl").read_text("utf-8").splitlines()
    ended = {one["id"]: one["code"] for one in map(json.loads, lines)}
    assert ended["s3"] == "not_in_training"


def test_a_scan_that_cannot_be_used_any_more_is_an_error(blocks: Blocks, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(blocks, tmp_path / "cut", stops="train")
    (tmp_path / "cut" / "cache" / "s3.safetensors").unlink()  # else it would be known
    with pytest.raises(OutputError, match=r"cannot be used now \(s3\): memory ran out") as caught:
        train(blocks, tmp_path / "cut", fails="s3", resume=True)
    assert "resume=True again" in str(caught.value.hint)
    assert train(blocks, tmp_path / "cut", resume=True).hash == load(whole).hash


def test_a_training_that_was_begun_by_an_earlier_version_goes_on(blocks: Blocks, whole: Path, tmp_path: Path) -> None:
    """It had a fingerprint per scan alone."""
    with pytest.raises(KeyboardInterrupt):
        train(blocks, tmp_path / "cut", stops="train")
    path = tmp_path / "cut" / "scans.json"
    path.write_text(json.dumps({name: one["input"] for name, one in json.loads(path.read_text("utf-8")).items()}))
    assert train(blocks, tmp_path / "cut", resume=True).hash == load(whole).hash


def test_the_record_is_of_the_scans_that_were_learned_from(blocks: Blocks, tmp_path: Path) -> None:
    """Stopped while they were prepared, and begun again with fewer of them."""
    shutil.copytree(blocks[0], tmp_path / "scans")
    with pytest.raises(KeyboardInterrupt):
        train((tmp_path / "scans", blocks[1]), tmp_path / "model", stops="prepare")
    (tmp_path / "scans" / "s0.nii.gz").unlink()
    model = train((tmp_path / "scans", blocks[1]), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "run.json").read_text("utf-8"))["counts"] == {"ok": 5}
    lines = (tmp_path / "model" / "manifest.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == model.latents.ids == ["s1", "s2", "s3", "s4", "s5"]


def test_classes_that_were_corrected_are_noticed_and_taken_over(blocks: Blocks, tmp_path: Path) -> None:
    table, out = tmp_path / "list.csv", tmp_path / "model"

    def listed(classes: str) -> None:
        rows = [f"{blocks[0]}/s{index}.nii.gz,s{index},{label}" for index, label in enumerate(classes)]
        table.write_text("\n".join(["scan,subject,label", *rows]) + "\n", "utf-8")

    listed("aaabbb")
    first = train((table, blocks[1]), out)
    listed("aababb")
    with pytest.raises(OutputError, match=r"trained when scans had other classes \([^,]*s2, [^,]*s3\)") as caught:
        train((table, blocks[1]), out)
    assert "resume=True" in str(caught.value.hint)
    second = train((table, blocks[1]), out, resume=True)
    assert second.latents.labels == list("aababb")
    assert second.hash == first.hash, "nothing was trained for it"
    assert train((table, blocks[1]), out).latents.labels == list("aababb")
