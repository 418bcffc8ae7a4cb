"""The page of a training: its numbers are those of the log, its map that of the codes, and no name becomes markup."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from medvae.cli.main import main
from medvae.review.latent_map import LATENT_MAP, latent_map
from medvae.review.training_page import TrainingPage

if TYPE_CHECKING:
    from pathlib import Path

    from chromium import Tab

EVIL = "<img src=x onerror=alert(1)>"
EPOCH = {"loss": 1.5, "validation": 1.2, "error": 0.5, "validation_error": 0.4, "mean_image_error": 0.6, "kl": 9.0}


def test_the_map_keeps_the_distances_of_codes_that_lie_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(7, 2)) * (3, 1)
    directions = np.linalg.qr(rng.normal(size=(24, 2)))[0]
    codes = (places @ directions.T + 5).reshape(7, 2, 3, 4).astype(np.float32)
    found = latent_map(codes, [f"s{i}" for i in range(7)], labels=[None] * 7, validation={"s1"})
    got = np.array([(one["x"], one["y"]) for one in found["scans"]])
    apart = [np.linalg.norm(one[:, None] - one, axis=-1) for one in (places, got)]
    np.testing.assert_allclose(apart[1], apart[0], atol=1e-3)
    assert sum(found["shares"]) == pytest.approx(1, abs=1e-4)
    assert [one["id"] for one in found["scans"] if one["validation"]] == ["s1"]


@pytest.mark.parametrize("count", [1, 2])
def test_the_map_of_one_or_two_scans_is_finite(count: int) -> None:
    codes = np.arange(count * 4, dtype=np.float32).reshape(count, 4)
    found = latent_map(codes, ["a", "b"][:count], labels=[None] * count, validation=())
    assert np.isfinite([*found["shares"], *(one["x"] + one["y"] for one in found["scans"])]).all()


def make_training(out: Path) -> Path:
    """A model folder as far as its page is concerned."""
    (out / "log").mkdir(parents=True)
    lines = [{"step": step, **EPOCH, "active": 3, "best": step < 30} for step in (10, 20, 30)]
    (out / "log" / "train.jsonl").write_text("\n".join(json.dumps(one) for one in lines) + '\n{"step": 4', "utf-8")
    points = [
        {"id": one, "x": n, "y": -n, "class": None, "validation": n == 1} for n, one in enumerate(["a", EVIL, "c"])
    ]
    (out / LATENT_MAP).write_text(json.dumps({"shares": [0.7, 0.2], "scans": points}), "utf-8")
    record = {"command": "train", "identity": {"settings": {}}, "training": 2, "validation": [EVIL], "steps": 30}
    record |= {"validation_error": 0.4, "mean_image_error": 0.6, "warnings": [EVIL], "seconds": 90}
    record |= {"active_units": 0, "kl": 0.0}
    (out / "run.json").write_text(json.dumps(record), "utf-8")
    TrainingPage(record).write(out)
    return out


def test_review_makes_the_page_from_the_disk(tmp_path: Path) -> None:
    out = make_training(tmp_path)
    before = (out / "review" / "index.html").read_bytes()
    (out / "review" / "index.html").unlink()
    assert main(["review", str(out), "--quiet"]) == 0
    assert (out / "review" / "index.html").read_bytes() == before


def test_a_reader_sees_curves_the_cohort_and_the_errors(tab: Tab, tmp_path: Path) -> None:
    tab.open(
        make_training(tmp_path) / "review" / "index.html", ready="document.documentElement?.dataset.ready === 'true'"
    )
    assert tab.js("document.querySelectorAll('#curves svg').length") == 4
    assert tab.js("document.querySelectorAll('#curves .line').length") == 7
    assert tab.js("[...document.querySelectorAll('#map title')].map((one) => one.textContent)") == [
        "a, training",
        f"{EVIL}, validation",
        "c, training",
    ]
    assert tab.js("document.querySelectorAll('img').length") == 0
    words = tab.js("document.body.textContent")
    assert "validation error 0.4, that of the mean training scan 0.6" in words
    assert "weights kept from step 20" in words
    assert "Active units0" in words, "a collapsed posterior is told"
    assert "KL0 nats per scan" in words
    assert "patient data" in words
