"""Pictures: scan names in any script draw without a word from matplotlib, and a thread that draws imports nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import is_math_text

from medvae.review.drawing import drawable
from medvae.review.montage import Montage, Picture
from medvae.review.samples import Pair, SampleMontage
from medvae.scan import Geometry

NAME = "schräg_ä日本"  # DejaVu Sans, which matplotlib brings, has no CJK
SHAPE = (12, 12, 12)


def test_what_the_font_lacks_is_a_box() -> None:
    assert drawable(NAME) == "schräg_ä□□"
    assert drawable("σ ≥ 2\np = 0.1, ± µ") == "σ ≥ 2\np = 0.1, ± µ"


@pytest.mark.filterwarnings("error")
def test_pictures_of_a_scan_with_such_a_name(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    whole, peaks = np.ones(SHAPE, bool), np.array([[6, 6, 6]])
    picture = Picture(data, data, whole, Geometry(SHAPE, np.eye(4)), peaks, (1.0,), (1,), 1.0, "z")
    assert Montage("a.png", picture, title=NAME, footer=NAME).png()
    pair = Pair(data, data, NAME, NAME)
    SampleMontage("b.png", (pair,), spacing=(1.0, 1.0, 1.0), limits=(0.0, 1.0), title=NAME).write(tmp_path)
    assert (tmp_path / "b.png").is_file()


@pytest.mark.parametrize("name", ["a$_$b", "$x^2$", "cost 3$", r"a\$b$c$", "$$"])
def test_dollars_are_dollars(name: str) -> None:
    assert not is_math_text(drawable(name))
    assert drawable(name).replace(r"\$", "$") == name, "as matplotlib shows what is no formula"
    data = np.ones(SHAPE, np.float32)
    picture = Picture(data, data, data > 0, Geometry(SHAPE, np.eye(4)), np.array([[6, 6, 6]]), (1.0,), (1,), 1.0, "z")
    assert Montage("a.png", picture, title=name, footer=name).png()


DRAW = """
import sys, threading
import numpy as np
from medvae.review.drawing import import_what_drawing_needs
from medvae.review.montage import Montage, Picture
from medvae.review.planes import three_planes
from medvae.review.thumbnail import Thumbnail
from medvae.scan import Geometry

class Seen:
    names = []

    def find_spec(self, name, path=None, target=None):
        self.names.append(name)

def draw():
    data = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    whole, peaks = np.ones(data.shape, bool), np.array([[6, 6, 6]])
    picture = Picture(data, data, whole, Geometry(data.shape, np.eye(4)), peaks, (1.0,), (1,), 1.0, "z", data > 0)
    Montage("m.png", picture, title="title", footer="footer").png()
    Thumbnail("t.png", picture).png()
    three_planes(data, spacing=(1.0, 1.0, 1.0), limits=(0.0, 1.0))

import_what_drawing_needs()
sys.meta_path.insert(0, Seen())
thread = threading.Thread(target=draw)
thread.start()
thread.join()
print("drawn", *Seen.names)
"""


def test_a_thread_that_draws_imports_nothing() -> None:
    """Ctrl-C inside an import of the main thread may leave a lock behind, for which an import elsewhere waits."""
    command = [sys.executable, "-c", DRAW]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["drawn"]
