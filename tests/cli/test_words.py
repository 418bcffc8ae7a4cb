"""Library texts become those of the command line."""

from __future__ import annotations

import pytest

from medvae.cli.parser import make_parser
from medvae.cli.words import translated


@pytest.mark.parametrize(
    ("python", "option"),
    [
        ("pass overwrite=True", "pass --overwrite"),
        ("use workers=0", "use --workers 0"),
        ("pass device='cpu'", "pass --device cpu"),
        ("fill them: set read.fill_non_finite=true", "fill them: use --set read.fill_non_finite=true"),
        ("or set augment.sampler=prior", "or use --set augment.sampler=prior"),
        ("set read.volume=2", "use --volume 2"),
        ("set detect.dicom=true", "use --dicom"),
        ("set read.assume_orientation=RAS if you know it", "use --assume-orientation RAS if you know it"),
        ("run medvae.calibrate with this model", "run `medvae calibrate` with this model"),
        ("run medvae.calibrate(model, scans) again", "run `medvae calibrate` again"),
        (
            "include='*.nii' takes them; check include=, exclude= and split=",
            "--include *.nii takes them; check --include, --exclude and --split",
        ),
        ("swap real= and holdout=", "swap --real and --holdout"),
        ("leave merge_with= out", "leave --merge-with out"),
        ("score=3 at x=5", "score=3 at x=5"),
        ("read.max_gib", "read.max_gib"),
    ],
)
def test_translated(python: str, option: str) -> None:
    assert translated(python) == option


def test_every_option_it_names_is_one_of_a_command() -> None:
    known = {
        option
        for action in make_parser()._actions
        for sub in (action.choices or {}).values()
        for option in sub._option_string_actions
    }
    for name in ("overwrite", "resume", "check", "hash_ids"):
        assert translated(f"{name}=True") in known
    for name in ("include", "exclude", "split", "config", "workers", "device", "minutes", "count", "sampler", "map"):
        assert translated(f"{name}=1").split()[0] in known
