"""`medvae info`: what is there, why it would be refused, the same as JSON; fast, and without the heavy packages."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dicom_made import put, ramp, slices

from medvae.cli.main import main
from medvae.io.formats import nifti
from medvae.pipelines import info
from medvae.scan import Geometry
from medvae.settings import Settings, load

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.run.work import Progress

OBLIQUE = np.array([[2.0, 0, 0, 5], [0, 1.97, -0.35, 6], [0, 0.35, 1.97, 7], [0, 0, 0, 1]])


def write(path: Path, *, affine: Any = None, dtype: Any = np.int16, fill: int | None = None) -> Path:
    """A small scan of whole numbers from 0 on, or of one value."""
    shape = (4, 5, 6)
    data = np.arange(120).reshape(shape) if fill is None else np.full(shape, fill)
    geometry = Geometry(shape, np.diag([2.0, 2, 2, 1]) if affine is None else affine)
    nifti.write(path, data.astype(dtype), geometry, description="made")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good, oblique, truncated and blank scans, one that says nothing, and a text."""
    scans = tmp_path / "scans"
    write(scans / "good.nii.gz")
    write(scans / "oblique.nii", affine=OBLIQUE, dtype=np.float32)
    write(scans / "blank.nii.gz", fill=7)
    cut = write(scans / "cut.nii")
    cut.write_bytes(cut.read_bytes()[:-10])
    (scans / "notes.txt").write_text("not a scan", "utf-8")
    return scans


def table(text: str) -> dict[str, list[str]]:
    """Rows of the table by id, split at the gaps of two blanks."""
    lines = text.partition("\n\n")[0].splitlines()[1:]
    return {cells[0]: cells[1:] for cells in ([c for c in line.split("  ") if c.strip()] for line in lines)}


def test_the_table_comes_from_the_headers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder)]) == 1
    said = capsys.readouterr().out
    rows = {name: [cell.strip() for cell in cells] for name, cells in table(said).items()}
    assert rows["good"] == ["nifti", "4×5×6", "2×2×2", "RAS", "int16", "?", "ok"]
    assert rows["oblique"] == ["nifti", "4×5×6", "2×2×2", "RAS 10°", "float32", "?", "ok"]
    assert rows["cut"] == ["nifti", "rejected (truncated)"]
    assert rows["blank"][-1] == "ok", "the header does not know"
    assert "4 scans of 4 subjects\ngrids: 3 4×5×6 at 2×2×2 mm\n" in said
    assert "rejected (truncated): cut: " in said
    assert "hint: copy or export the file again" in said
    assert "3 ok, 1 rejected" in said
    assert "skipped 1 other file, in no format that medvae reads" in said


def test_check_reads_every_voxel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder), "--check", "--quiet"]) == 1
    rows = table(capsys.readouterr().out)
    assert rows["good"][-1].strip() == "0 to 119 a.u."
    assert rows["blank"][-1].strip() == "rejected (blank)"
    assert rows["blank"][1].strip() == "4×5×6", "what the header says stays in the table"


def test_json_has_one_object_a_scan_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder), "--json", "--check", "--quiet"]) == 1
    objects = {one["id"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(objects) == {"good", "oblique", "cut", "blank"}
    good = objects["good"]
    assert (good["status"], good["code"], good["axes"], good["dtype"]) == ("ok", None, "RAS", "int16")
    assert good["shape"] == [4, 5, 6]
    assert good["values"] == [0, 119]
    assert np.allclose(np.array(objects["oblique"]["affine"]), OBLIQUE, atol=1e-5)
    assert objects["cut"]["code"] == "truncated"
    assert objects["cut"]["hint"]
    assert "shape" not in objects["cut"]


def test_a_list_tells_labels_splits_masks_and_subjects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.nii.gz")
    write(tmp_path / "mask.nii.gz", affine=np.diag([3.0, 3, 3, 1]))
    rows = "a.nii.gz,p1,ill,,train,MR\nb.nii.gz,p1,well,,train,CT\nc.nii.gz,p2,ill,mask.nii.gz,test,\n"
    (tmp_path / "list.csv").write_text(f"scan,subject,label,mask,split,modality\n{rows}", "utf-8")
    command = ["info", str(tmp_path / "list.csv"), "--check", "--quiet"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "3 scans of 2 subjects\n" in said
    assert "splits: 2 train, 1 test\n" in said
    assert "labels: 2 ill, 1 well\n" in said
    assert table(said)["c"][-1].strip() == "rejected (mask_mismatch)"
    assert main([*command, "--split", "train"]) == 0
    assert "2 ok" in capsys.readouterr().out


def test_a_preset_says_which_scans_are_not_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.nii.gz")
    assert main(["info", str(tmp_path), "--config", "chest-ct", "--set", "read.modality=MR"]) == 2
    said = capsys.readouterr().out
    assert "rejected (wrong_modality): a: the scan is MR, the settings are for CT" in said
    assert main(["info", str(tmp_path), "--config", "chest-ct"]) == 0, "a NIfTI file does not say what it is"
    assert table(capsys.readouterr().out)["a"][-2].strip() == "CT (settings)"


def test_check_warns_of_values_that_cannot_be_hounsfield_units(tmp_path: Path) -> None:
    shifted = np.linspace(0, 1600, 120).reshape(4, 5, 6).astype(np.int16)  # no air, no fat
    nifti.write(tmp_path / "a.nii.gz", shifted, Geometry((4, 5, 6), np.eye(4)), description="made")
    said = [info.run(tmp_path, settings=load(name), check=True).entries[0].outcome for name in ("chest-ct", None)]
    assert "do not look like Hounsfield units" in " ".join(said[0].warnings)
    assert said[0].status == "ok"
    assert not said[1].warnings, "without a preset nothing says that it is a CT"


def test_dicom_is_shown_with_its_folder_and_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pat1", "pat2"):
        put(tmp_path / name / "ct", slices(ramp()), lambda one, _: setattr(one, "SeriesDescription", "Thorax 1.0 B40f"))
    write(tmp_path / "other" / "a.nii.gz")
    assert main(["info", str(tmp_path)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["folder", "description"]
    shown = sorted(line.split("ok")[1].strip() for line in lines if line.startswith("series-"))
    assert shown == ["pat1/ct  Thorax 1.0 B40f", "pat2/ct  Thorax 1.0 B40f"]
    write(tmp_path / "only" / "a.nii.gz")
    assert main(["info", str(tmp_path / "only")]) == 0
    assert "description" not in capsys.readouterr().out, "of NIfTI the id is the place"


def test_conditions_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.nii.gz")
    (tmp_path / "list.csv").write_text("scan,age,sex\na.nii.gz,20,F\nb.nii.gz,61.5,M\nc.nii.gz,n/a,F\n", "utf-8")
    assert main(["info", str(tmp_path / "list.csv")]) == 0
    assert "conditions: age (20 to 61.5, missing in 1), sex (F/M)\n" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "list.csv"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["conditions"] == {"age": 20, "sex": "F"}
    assert first["subject_from"] == "scan"


def test_the_report_is_data_and_nothing_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Progress] = []
    report = info.run(str(folder), settings=Settings(), check=True, on_progress=seen.append)
    assert [(one.stage, one.done, one.total) for one in seen] == [("check", n, 4) for n in (1, 2, 3, 4)]
    assert {entry.ref.id: entry.outcome.code for entry in report.entries} == {
        "good": None,
        "oblique": None,
        "blank": "blank",
        "cut": "truncated",
    }
    assert (report.exit_code, report.ignored, len(report.rows)) == (1, 1, 4)
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert report.lines[0] == "4 scans of 4 subjects"
    assert json.loads(json.dumps(report.records))
    assert capsys.readouterr().out == ""


def test_a_warning_is_told_once_and_many_grids_are_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(6):
        path = write(tmp_path / f"s{n}.nii", affine=np.diag([1.0 + n, 1, 1, 1]))
        if n < 3:  # a qform that lies elsewhere than the sform
            raw = bytearray(path.read_bytes())
            raw[268:272] = np.float32(50).tobytes()
            path.write_bytes(raw)
    assert main(["info", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("warning: ") == 1
    assert "warning: s0 and 2 more: sform and qform are 50.0 mm apart" in said
    assert ", 2 more\n" in said.partition("grids: ")[2]


def test_a_hundred_headers_take_two_seconds_and_neither_torch_nor_monai(tmp_path: Path) -> None:
    first = write(tmp_path / "scans" / "s000.nii.gz")
    for n in range(1, 100):
        (tmp_path / "scans" / f"s{n:03d}.nii.gz").write_bytes(first.read_bytes())
    code = (
        "import sys; from medvae.cli.main import main; assert main(['info', 'scans']) == 0\n"
        "print([name for name in ('torch', 'monai', 'SimpleITK', 'rich') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "100 ok" in done.stdout
    seconds = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    assert seconds < 2, "of processor time: other work on the machine does not count"
