"""Files are whole or absent, whatever stops the writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from medvae.io.files import PARTIAL, atomic, final_name, remove_partials, write_json, write_text
from medvae.io.owner import SILENCE_S, Owner, me

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    with atomic(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == path.parent  # so that the rename never crosses a file system
    assert path.read_text() == "new"
    assert names(tmp_path) == ["deep/er/a.txt"]


@pytest.mark.parametrize("stop", [ValueError("a bug"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_the_writing_is_passed_on_and_nothing_is_left(tmp_path: Path, stop: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(stop)), atomic(path) as partial:  # noqa: PT012
        partial.write_text("ha")
        raise stop
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "a.txt", "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "a.txt", "new")
    assert names(tmp_path) == ["file"]


def in_another_process(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    code = """
import os, signal, sys
from pathlib import Path
from medvae.io.files import atomic
with atomic(Path(sys.argv[1]) / "a.txt") as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert in_another_process(code, tmp_path).returncode == -9
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sum(name.startswith(PARTIAL) for name in names(tmp_path)) == 1
    assert remove_partials(tmp_path) == 1  # what the next run does
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_an_oserror_and_the_old_file_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "a.nii", "old")
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from medvae.io.formats import nifti
from medvae.scan import Geometry
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as a quota: writing more fails
geometry = Geometry((32, 32, 32), np.eye(4))
try:
    nifti.write(Path(sys.argv[1]) / "a.nii", np.ones(geometry.shape, np.float32), geometry, description="")
except OSError as error:
    print("OSError", error.errno)
"""
    done = in_another_process(code, tmp_path)
    assert done.stdout.startswith("OSError"), done.stderr
    assert (tmp_path / "a.nii").read_text() == "old"
    assert names(tmp_path) == ["a.nii"]


def test_only_partial_files_whose_writer_has_ended_are_removed(tmp_path: Path) -> None:
    ended, elsewhere = Owner(me().machine, 2**22 + 1, 1), Owner("0123abcd", 7, 7)
    gone = [f"scans/x/{PARTIAL}{ended}-map.nii.gz", f"{PARTIAL}{elsewhere}-old.nii", f"{PARTIAL}12-old.nii"]
    kept = [f"{PARTIAL}{me()}-run.json", f"{PARTIAL}{elsewhere}-new.nii", f"{PARTIAL}12-new.nii", "partial-notes.txt"]
    for name in (*gone, *kept, "scans/x/map.nii.gz"):
        write_text(tmp_path / name, "")
        if name.endswith("old.nii"):
            os.utime(tmp_path / name, (0, time.time() - SILENCE_S - 60))
    assert remove_partials(tmp_path) == 3
    assert names(tmp_path) == sorted([*kept, "scans/x/map.nii.gz"])
    assert remove_partials(tmp_path) == 0


def test_a_partial_file_knows_its_final_name(tmp_path: Path) -> None:
    with atomic(tmp_path / "map-1-2.nii.gz") as partial:
        partial.touch()
        assert final_name(str(partial)) == str(tmp_path / "map-1-2.nii.gz")
    assert final_name("a/b.nii") == "a/b.nii"


def test_json_keeps_the_order_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": "σ"})
    assert path.read_text("utf-8") == '{\n  "b": 1,\n  "a": "σ"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text("utf-8"))["b"] == 1
