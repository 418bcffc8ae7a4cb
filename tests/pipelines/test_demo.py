"""The demo from end to end, small: its files, its table, and a second run that does only what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from medvae.errors import OutputError
from medvae.pipelines import demo
from medvae.run.work import Progress
from medvae.settings import Settings, load

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.run.outcomes import Finished

SIZES = {"train": 2, "calibrate": 2, "test": 2}
SMALL = (
    "train.steps=2",
    "train.batch=1",
    "train.validation=0",
    "prepare.spacing=[8, 8, 8]",
    "prepare.shape=[24, 28, 24]",
    "model.options={stem: 4, channels: [8]}",
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a demo that takes seconds; its cohort is small, too."""
    monkeypatch.setattr(demo, "SIZES", SIZES)
    monkeypatch.setattr(demo, "SYNTHETIC", 1)
    return load("demo", SMALL)


def run(out: Path, settings: Settings, **more: Any) -> Finished:
    return demo.run(out, settings=settings, device="cpu", workers=0, **more)


def test_the_demo_goes_from_files_to_files_and_goes_on(small: Settings, tmp_path: Path) -> None:
    out, seen = tmp_path / "demo", list[Progress]()
    finished = run(out, small, on_progress=seen.append)
    assert finished.exit_code == 0
    assert {progress.stage[:3] for progress in seen} == {f"{number}/5" for number in range(1, 6)}
    assert seen[0].total == sum(SIZES.values())
    text = "\n".join(finished.lines)
    for name in small.detect.maps:
        assert any(line.startswith(f"{name} ") and "[" in line for line in text.splitlines()), name
    assert "chance: AP" in text
    assert "Research use only" in text
    shown = [line.split(": ")[0].strip() for line in text[text.index("Where") :].splitlines() if str(out) in line]
    assert len(shown) == 4
    assert all((out / path).exists() for path in shown)
    assert "member-005" in shown[0]  # a test member with a lesion
    assert (out / "cohort" / "NOTICE.txt").is_file()
    assert len(list((out / "cohort").glob("member-*.nii.gz"))) == sum(SIZES.values())
    assert len(list((out / "maps" / "scans").iterdir())) == SIZES["test"]

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    gone = out / "cohort" / "member-001.nii.gz"
    written = gone.read_bytes()
    gone.unlink()
    again = run(out, small)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    assert gone.read_bytes() == written
    assert {path: t for path, t in after.items() if path != gone} == {p: t for p, t in before.items() if p != gone}
    assert _table("\n".join(again.lines)) == _table(text)

    other = small.model_copy(update={"seed": 5})
    with pytest.raises(OutputError, match="another run"):
        run(out, other)
    assert gone.read_bytes() == written


def _table(text: str) -> str:
    return text[text.index("held-out") : text.index("Where to look")]


def test_the_preset_of_the_demo_is_one_that_trains() -> None:
    from medvae.checkpoint.model import build_vae

    settings = load("demo")
    vae = build_vae(settings)
    assert vae.latent_shape(settings.prepare.shape)
    assert settings.train.steps <= 1000
    assert set(settings.detect.maps) >= {"residual_z", "residual", "atlas", "intensity"}
