"""The command line: whatever is wrong ends as one line, a hint and an exit code; Ctrl-C is clean."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_model

from medvae.anomaly.reference import reference_of
from medvae.checkpoint.arrays import save_set
from medvae.checkpoint.folder import save
from medvae.cli.main import _again, main
from medvae.io.files import PARTIAL
from medvae.io.formats import nifti
from medvae.pipelines import info
from medvae.run import folder
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = "info, train, calibrate, detect, review, evaluate, augment, demo"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real checkpoint. Do not write into it."""
    folder = tmp_path_factory.mktemp("cli") / "model"
    save(small_model.trained(), folder)
    return folder


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two small scans that can be used."""
    for name in ("a", "b"):
        write(tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


def write(path: Path) -> Path:
    data = np.zeros((20, 18, 16), np.float32)
    data[3:17, 3:15, 3:13] = 100 + 20 * np.random.default_rng(0).normal(size=(14, 12, 10))
    nifti.write(path, data, Geometry(data.shape, np.eye(4)), description="block")
    return path


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[str, str]:
    """The one line and the hint of a command that cannot be carried out."""
    capsys.readouterr()
    assert main([str(text) for text in argv]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith(("medvae: ", "  hint: "))]
    assert len(lines) == 2, err
    assert err.endswith("\n".join(lines) + "\n"), "they come last"
    return lines[0].removeprefix("medvae: "), lines[1].removeprefix("  hint: ")


# ------------------------------------------------------------------------------------------------------------- inputs


def test_folders_without_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "info", tmp_path / "gone")[0] == f"no such file or folder: {tmp_path / 'gone'}"
    (tmp_path / "empty").mkdir()
    line, hint = refused(capsys, "info", tmp_path / "empty")
    assert line == "empty: no files in it"
    assert "NIfTI" in hint
    (tmp_path / "empty" / "notes.txt").write_text("text", "utf-8")
    assert refused(capsys, "info", tmp_path / "empty")[0] == "empty: no scan in 1 file (1 .txt)"
    assert refused(capsys, "info", tmp_path / "empty", "--split", "x")[0] == "empty: only a list has splits"


def truncated(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(bytes(2**20))


def giant(path: Path) -> None:
    head = bytearray(gzip.decompress(path.read_bytes())[:352])
    head[40:56] = struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)
    path.write_bytes(gzip.compress(bytes(head)))


@pytest.mark.parametrize(("damage", "code"), [(truncated, "truncated"), (bomb, "not_a_scan"), (giant, "too_large")])
def test_a_damaged_file_is_named_and_the_others_are_done(
    scans: Path, damage: Any, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(scans / "a.nii.gz")
    assert main(["info", "--check", str(scans)]) == 1
    said = capsys.readouterr()
    assert f"rejected ({code}): a" in said.out
    assert "hint: " in said.out
    assert "1 ok, 1 rejected" in said.out
    assert "Traceback" not in said.out + said.err
    (scans / "b.nii.gz").unlink()
    assert main(["info", "--check", str(scans)]) == 2, "nothing is left to use"


def test_a_file_that_may_not_be_read(
    scans: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = io.open

    def guarded(file: Any, *more: Any, **named: Any) -> Any:
        if str(file).endswith("a.nii.gz"):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return real(file, *more, **named)

    monkeypatch.setattr("builtins.open", guarded)
    monkeypatch.setattr(io, "open", guarded)
    assert main(["info", str(scans)]) == 1
    assert "rejected (unreadable): a: Permission denied" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- settings


def test_wrong_settings(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, hint = refused(capsys, "info", scans, "--set", "read.volum=1")
    assert "unknown setting 'read.volum'" in line
    assert "did you mean 'read.volume'?" in hint
    line, hint = refused(capsys, "info", scans, "--set", "lr=1")
    assert line == "unknown setting 'lr' in the settings"
    assert hint == "did you mean 'train.lr'?"
    config = tmp_path / "mine.yaml"
    config.write_text("train: {steps: many}\n", "utf-8")
    assert main(["train", str(scans), "--config", str(config), "--out", str(tmp_path / "m")]) == 2
    assert "mine.yaml: a whole number is needed" in capsys.readouterr().err
    line, hint = refused(capsys, "train", scans, "--config", "vessel-shap", "--out", tmp_path / "m")
    assert line == "there is no preset or file 'vessel-shap'"
    assert "did you mean 'vessel-shape'?" in hint
    line, hint = refused(capsys, "detect", scans, "--model", "m", "--out", tmp_path / "o", "--map", "residul")
    assert line == "there is no 'residul' among the maps"
    assert "'residual'" in hint
    line, hint = refused(capsys, "augment", "--model", "m", "--out", tmp_path / "o", "--count", "3", "--sampler", "x")
    assert line == "there is no 'x' among the samplers"
    assert "density" in hint
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["augment", "--model", "m", "--out", "o", "--count", "0"], "'0' is not a whole number of at least 1"),
        (["augment", "--model", "m", "--out", "o", "--count", "x"], "'x' is not a whole number of at least 1"),
        (["augment", "--model", "m", "--out", "o"], "--count"),
        (["train", "x", "--config", "demo", "--out", "o", "--minutes", "0"], "'0' is not a number above 0"),
        (["train", "x", "--config", "demo", "--out", "o", "--minutes", "soon"], "'soon' is not a number above 0"),
        (["train", "x", "--config", "demo", "--out", "o", "--workers", "-1"], "-1"),
        (["train", "x", "--config", "demo", "--out", "o", "--device", "gpu"], "'gpu' is not one of auto, cpu, cuda"),
        (["train", "x", "--out", "o"], "--config"),
        (["info", "x", "--chek"], "no option --chek"),
        (["detect", "x", "--modle", "m", "--out", "o"], "no option --modle"),
        (["augment", "--model", "m", "--out", "o", "--workers=2", "--count", "1"], "no option --workers"),
        (["--verson"], "no option --verson"),
        (["train", "", "--config", "demo", "--out", "o"], "the path is empty"),
        (["train", "x", "--config", "demo", "--out", " "], "the path is empty"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, hint = refused(capsys, *argv)
    assert said in line
    assert "--help" in hint
    if argv[:1] in (["info"], ["detect"]):
        assert f"see medvae {argv[0]} --help" in hint
        assert "did you mean --" in hint


def test_an_unknown_command_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    line, hint = refused(capsys, "trian", "scans", "--config", "demo")
    assert line == "there is no command 'trian'"
    assert hint == f"did you mean 'train'? choose one of: {COMMANDS}"
    assert refused(capsys, "--quiet-please", "nonsense")[0] == "there is no option --quiet-please"
    assert refused(capsys, "nonsense")[1].startswith("choose one of: info")


# ------------------------------------------------------------------------------------------------------------- models


def test_models_that_cannot_be_used(
    scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line, hint = refused(capsys, "detect", scans, "--model", tmp_path / "gone", "--out", out)
    assert "not a model folder" in line
    assert "train a model" in hint
    assert "not a model folder" in refused(capsys, "calibrate", scans, "--model", tmp_path / "gone")[0]
    assert (
        "not a model folder"
        in refused(capsys, "augment", "--model", tmp_path / "gone", "--out", out, "--count", "2")[0]
    )
    detect = ("detect", scans, "--model", tmp_path / "copy", "--out", out)
    shutil.copytree(model, tmp_path / "copy")
    truncated(tmp_path / "copy" / "vae.safetensors")
    assert refused(capsys, *detect)[1]
    shutil.copy(model / "vae.safetensors", tmp_path / "copy")
    save_set(
        tmp_path / "copy", "reference", replace(reference_of(small_model.trained()), model_hash="another").to_set()
    )
    line, hint = refused(capsys, *detect)
    assert "the Reference belongs to another model" in line
    assert "calibrate the model" in hint
    assert "cuda:7" in refused(capsys, "detect", scans, "--model", model, "--out", out, "--device", "cuda:7")[0]
    line, _ = refused(capsys, "detect", scans, "--model", model, "--out", out, "--set", "prepare.align=none")
    assert line == "prepare.* belongs to the model and cannot be changed after training"
    assert not out.exists(), "nothing is written where nothing can be done"


# --------------------------------------------------------------------------------------------- disk, memory, surprises


def test_a_full_disk(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(folder, "write_json", full)
    argv = ("train", scans, "--config", "demo", "--out", tmp_path / "m", "--set", "prepare.shape=[16, 16, 16]")
    line, hint = refused(capsys, *argv)
    assert line == "run.json: the disk is full"
    assert "free some space" in hint


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "/x/y.nii"), "y.nii: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "y: Permission denied"),
        (MemoryError(), "memory ran out"),
        (ValueError("two\nlines"), "unexpected ValueError: two lines"),
    ],
)
def test_what_reaches_the_top_is_one_line(
    problem: Exception, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise problem

    monkeypatch.setattr(info, "run", fail)
    assert refused(capsys, "info", "x")[0] == line
    assert main(["info", "x", "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err, "all of it, where it is asked for"


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", stop)
    assert main(["info", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_scheduler_that_ends_us_is_answered_as_ctrl_c_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ended(*_: Any, **__: Any) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr(info, "run", ended)
    assert main(["info", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_runs_in_a_thread_too(scans: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["info", str(scans), "--quiet"]).result() == 0


def test_a_reader_that_has_enough_is_no_error(scans: Path) -> None:
    command = [sys.executable, "-m", "medvae", "info", "--json", "--quiet", str(scans)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == b""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_while_training_leaves_no_partial_file(scans: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "model", tmp_path / "long.yaml"
    config.write_text(
        "prepare: {modality: MR, spacing: [1, 1, 1], shape: [24, 24, 16]}\n"
        "model: {options: {stem: 2, channels: [8, 16], latent: 2}}\n"
        "train: {steps: 1000000, validate_every: 1, precision: '32'}\n"
        "detect: {maps: [residual]}\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "medvae", "train", str(scans), "--config", str(config), "--out", str(out)]
    # what a shell starts in the background ignores Ctrl-C, and hands that on to whatever it starts
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
    try:
        end = time.monotonic() + 120
        while not (out / "last").exists() and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert "with --resume" in err
    assert not list(out.rglob(f"{PARTIAL}*"))
    assert not (out / "model.json").exists()


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (("detect", "in"), ", as it is: it does what is missing"),
        (("detect", "in", "--overwrite"), ", without --overwrite: it does what is missing"),
        (("train", "in"), ", with --resume: it does what is missing"),
        (("train", "in", "--overwrite"), ", with --resume and without --overwrite: it does what is missing"),
        *[((command, "in"), ": it begins anew") for command in ("info", "evaluate", "review")],
    ],
)
def test_how_to_go_on_after_an_interruption(words: tuple[str, ...], how: str) -> None:
    """A command that begins anew when it is repeated would throw away what was done."""
    assert _again(words) == f"run the same command again{how}"


def test_a_run_goes_on_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """As with `2>&1 | head -1`: its exit code says how it ended, not that its reader has gone."""
    script = """
import logging, sys
from medvae.cli import commands, console
from medvae.cli.main import main
from medvae.run.work import Progress

def info(args):
    with console.progress() as tell:
        for done in range(3):
            tell(Progress(f"stage {done}", done, 3))
            logging.getLogger("medvae").warning("heard by nobody")
    for line in range(5000):
        console.out("a line that fills the pipe")
    open(sys.argv[1], "w").close()
    return 1

commands.info = info
sys.exit(main(["info", "."]))
"""
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "done")], stdout=write, stderr=write, check=False
    )
    os.close(write)
    assert ran.returncode == 1
    assert (tmp_path / "done").is_file()
