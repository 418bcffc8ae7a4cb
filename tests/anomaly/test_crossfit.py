"""Cross-fitting: a training scan is mapped by the fold that has not seen it, and compared with nothing that has."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import linear_model
import numpy as np
import pytest
import torch
from linear_model import healthy

from medvae import plugins
from medvae.anomaly.calibrate import Statistics, make_reference, with_training
from medvae.anomaly.configured import configured
from medvae.anomaly.crossfit import KeptScans, cross_fitted
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import Reference, reference_of, with_reference
from medvae.checkpoint.folds import FoldModel, folds_record
from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.model import weights_hash
from medvae.errors import ModelError
from medvae.vae.conditions import Condition, Conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

NAMES = plugins.names("maps")
PARTS = ((0, 1, 2), (3, 4, 5))  # rows of the six training scans


def scans() -> list[Prepared]:
    return healthy(6)


def network(number: int) -> Model:
    """The network of a fold, slightly another one, with its codes turned round."""
    model = linear_model.bare_model()
    weights = model.vae.get_buffer("patterns")
    with torch.no_grad():
        weights.mul_(-1 if number % 2 else 1).mul_(1 + 0.01 * number)
    return replace(model, hash=weights_hash(model.networks))


def trained(scans: Sequence[Prepared], number: int) -> Model:
    """A network with the statistics of its training scans."""
    return with_training(network(number), scans)


def folds(every: Sequence[Prepared]) -> list[FoldModel]:
    return [
        FoldModel(
            trained([one for row, one in enumerate(every) if row not in part], number),
            frozenset(every[row].id for row in part),
        )
        for number, part in enumerate(PARTS, start=1)
    ]


@cache
def made() -> tuple[Model, list[FoldModel], Reference]:
    every = scans()
    others, model = folds(every), trained(every, 0)
    model = replace(model, record=folds_record(others))
    return model, others, cross_fitted(model, others, every, names=NAMES)


def test_what_it_holds() -> None:
    model, others, reference = made()
    assert (reference.n, reference.cross_fitted, reference.calibrated) == (6, 6, True)
    assert reference.folds == tuple(one.model.hash for one in others)
    assert reference.status == "cross-fitted, n=6"
    assert reference.in_words == "calibrated on 6 healthy scans of its training, by cross-fitting (2 folds)"
    assert reference.least_in_words == "the smallest possible p of a scan is 0.143"
    assert reference.scan_hashes == tuple(one.source_hash for one in scans())
    assert set(reference.maps) == set(NAMES)
    again = Reference.from_set(reference.to_set())
    assert (again.folds, again.cross_fitted, again.hash) == (reference.folds, 6, reference.hash)
    kept = reference_of(with_reference(model, reference))
    assert kept.training.keys() == reference_of(model).training.keys(), "calibrating goes on from the training scans"


def test_a_reference_made_with_other_folds_is_refused() -> None:
    model, others, reference = made()
    other = replace(model, record=folds_record(others[:1]))
    with pytest.raises(ModelError, match="made with folds that are not"):
        reference_of(with_reference(other, reference))
    assert not reference_of(other).folds, "that of the training scans is not of any fold"


def statistics(every: Sequence[Prepared], others: Sequence[FoldModel], model: Model) -> Statistics:
    """All sums over the scans, as `reference_from` makes them."""
    own = {one.model: reference_of(one.model).training for one in others}
    training = reference_of(model).training
    found = Statistics(configured(NAMES, {}), model.preparation.grid.spacing, training, folds=own)
    for names in found.passes():
        for row in range(len(every)):
            found.add(mapped(every, others, row), names)
        found.fit(names)
    return found


def mapped(every: Sequence[Prepared], others: Sequence[FoldModel], row: int) -> linear_model.Any:
    (fold,) = (one for one in others if every[row].id in one.held_out)
    return infer(fold.model, every[row])


def test_nothing_that_a_scan_is_compared_with_knows_the_scan() -> None:
    """Whatever the scan is like: all that its healthy z is computed with stays the same, the other folds being given.

    But for the maps that count how rare others are: the maps of the other scans, left out one by one, see this one.
    """
    every, row = scans(), 4
    changed, others = list(every), made()[1]
    changed[row] = replace(every[row], image=np.where(every[row].mask, 3 * every[row].image + 1, 0).astype(np.float32))
    before, after = (
        statistics(them, others, trained(them, 0)).without(mapped(them, others, row)) for them in (every, changed)
    )
    for name, method in configured(NAMES, {}).items():
        assert before[name].keys() == after[name].keys()
        for key, values in before[name].items() if not method.USES_LEFT_OUT else ():
            np.testing.assert_allclose(after[name][key], values, rtol=1e-4, atol=1e-4, err_msg=f"{name} {key}")


def test_what_is_rare_is_judged_by_the_training_scans_of_the_fold() -> None:
    model, others, _ = made()
    found = statistics(scans(), others, model).without(mapped(scans(), others, 4))["fused"]
    own, whole = (reference_of(one).training["fused"] for one in (others[1].model, model))
    assert all((found[name] <= values).all() for name, values in own.items())
    assert not all((found[name] <= values).all() for name, values in whole.items()), "the scan itself is among these"


def test_the_atlas_of_a_scan_is_that_of_its_fold() -> None:
    """The plain computation: |v − μ| / s with the mean and spread of the scans that the fold was trained on."""
    model, others, reference = made()
    scores = []
    for fold in others:
        arrays = reference_of(fold.model).training["atlas"]
        for scan in (one for one in scans() if one.id in fold.held_out):
            z = np.abs((scan.image - arrays["mean"]) / arrays["sd"])[scan.mask]
            scores.append(np.sort(z)[-round(0.01 * z.size) :].mean())
    np.testing.assert_allclose(reference.maps["atlas"].scores, np.sort(scores), rtol=1e-5)
    kept = reference_of(model).training["atlas"]
    assert reference.maps["atlas"].arrays is reference.training["atlas"]
    assert np.array_equal(reference.maps["atlas"].arrays["mean"], kept["mean"]), "a new scan meets the whole training"


def test_codes_of_different_networks_are_never_summed() -> None:
    """A fold whose codes have the other sign describes the scans just as well."""
    every, turned = scans(), made()[1]
    straight = [replace_signs(one) for one in turned]
    plain = cross_fitted(made()[0], straight, every, names=["latent"]).maps["latent"]
    np.testing.assert_allclose(plain.scores, made()[2].maps["latent"].scores, rtol=1e-4)
    arrays = reference_of(made()[0]).training["latent"]
    assert np.array_equal(plain.arrays["mean"], arrays["mean"]), "the model's own"


def replace_signs(fold: FoldModel) -> FoldModel:
    """The same fold with codes of the other sign."""
    rows = [one for one in scans() if one.id not in fold.held_out]
    model = linear_model.bare_model()
    with torch.no_grad():
        model.vae.get_buffer("patterns").copy_(-fold.model.vae.get_buffer("patterns"))
    model = replace(model, hash=weights_hash(model.networks))
    return FoldModel(with_training(model, rows), fold.held_out)


def test_the_statistics_of_a_fold_are_those_of_a_first_reference() -> None:
    every = healthy(3)
    first = make_reference(network(1), every, calibrated=False)
    made = reference_of(with_training(network(1), every))
    assert (made.n, made.calibrated, made.maps) == (3, False, {})
    assert made.training.keys() == first.training.keys()
    for name, arrays in first.training.items():
        assert all(np.array_equal(made.training[name][key], values) for key, values in arrays.items())


def test_a_condition_that_a_fold_has_never_met_is_missing() -> None:
    model, others, _ = made()
    met = Conditions((Condition("site", words=("a",)),))
    strange = [replace(one, conditions={"site": "b"}) for one in scans()]
    these = [replace(one, model=replace(one.model, conditions=met)) for one in others]
    assert cross_fitted(model, these, strange, names=["nll"]).n == 6


def test_new_scans_are_mapped_by_the_model_itself() -> None:
    model, others, before = made()
    new = healthy(3, start=700)
    reference = cross_fitted(model, others, scans(), new=new, names=["residual_z", "nll"])
    assert (reference.n, reference.cross_fitted) == (9, 6)
    assert reference.in_words.endswith("(2 folds), and on 3 more")
    own = make_reference(model, new, names=["nll"], calibrated=True).maps["nll"].scores
    together = np.sort([*before.maps["nll"].scores, *own])
    np.testing.assert_allclose(reference.maps["nll"].scores, together, rtol=1e-5)


def test_kept_scans_give_what_the_scans_gave() -> None:
    """Half precision, without the way back: the scores are the same but for the rounding."""
    every, (model, others, before) = scans(), made()
    kept = TrainingScans(
        np.stack([one.image for one in every]).astype(np.float16),
        np.stack([one.mask for one in every]),
        None,
        [one.intensity for one in every],
        [one.id for one in every],
    )
    nothing = np.zeros((6, linear_model.UNITS), np.float32)
    columns = [[getattr(one, key) for one in every] for key in ("id", "subject", "source_hash")]
    latents = Latents(nothing, nothing, columns[0], columns[1], [None] * 6, columns[2])
    again = KeptScans.without_lesions(replace(model, training=kept, latents=latents))
    assert [one.source_hash for one in again] == columns[2]
    reference = cross_fitted(model, others, again, names=["residual_z"])
    np.testing.assert_allclose(reference.maps["residual_z"].scores, before.maps["residual_z"].scores, rtol=1e-2)
