"""Networks trained on real and synthetic scans: they learn, arms are paired, and each sees what it is named after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_images import SHAPE, made

from medvae.errors import InputError
from medvae.evaluation import utility
from medvae.evaluation.classical import classical
from medvae.evaluation.plan import ARMS, HEADLINE, Plan, arms_with
from medvae.evaluation.tasks import Classification, Segmentation
from medvae.evaluation.utility import Experiment

SPACING = (2.0, 1.0, 1.0)
PLAN = Plan(steps=2)


def segmentation(plan: Plan = PLAN, **extras: object) -> Experiment:
    real, test = made(6), made(4, seed=1)
    return Experiment(Segmentation.of(real, [test], spacing=SPACING), real, test, extras, plan)  # type: ignore[arg-type]


def test_a_segmenter_learns_a_ball() -> None:
    trial = segmentation(Plan(steps=40, lr=1e-2)).run([ARMS["real"]], draws=[0])[0]
    assert trial.measures["dice"].values.mean() > 0.7
    assert 0 < trial.measures["surface_mm_1"].values.mean() < 2
    assert list(trial.measures) == ["dice", "surface_mm", "dice_1", "surface_mm_1"]


@pytest.mark.parametrize("steps", [1, 9, 10, 11])
def test_a_training_may_be_short(steps: int) -> None:
    assert len(segmentation(Plan(steps=steps, batch=1)).run([ARMS["real"]], draws=[0])) == 1


def test_a_classifier_learns_bright_from_dark() -> None:
    real, test = (made(8, seed=seed, classes=("bright", "dark")) for seed in (0, 1))
    experiment = Experiment(Classification.of(real, [test]), real, test, {}, Plan(steps=30, batch=4, lr=1e-2))
    measure = experiment.run([ARMS["classical"]], draws=[0])[0].measures["balanced_accuracy"]
    assert measure.values.mean() > 0.8
    assert measure.strata.tolist() == [0, 1] * 4


def test_a_structure_that_is_missed_is_far_away_and_an_absent_one_is_not_counted() -> None:
    experiment = segmentation()
    nothing = torch.nn.Conv3d(1, 2, 1)
    with torch.inference_mode():
        nothing.weight.zero_()
        nothing.bias.copy_(torch.tensor([1.0, 0.0]))  # type: ignore[union-attr]
        test = replace(experiment.test, label_maps=experiment.test.label_maps.copy())  # type: ignore[union-attr]
        test.label_maps[0] = 0  # type: ignore[index]
        images = [torch.zeros(1, *SHAPE)] * 4
        found = experiment.task.measures(nothing, images, test)
        part = (slice(None), slice(None), *[slice(2, 10)] * 3)
        smaller = replace(test, images=test.images[part], masks=test.masks[part], label_maps=test.label_maps[part])  # type: ignore[index]
        cut = experiment.task.measures(nothing, [image[part[1:]] for image in images], smaller)
    assert np.isnan(found["dice"].values[0])
    assert found["dice"].values[1:].tolist() == [0] * 3
    assert found["surface_mm"].values[1] == pytest.approx(np.linalg.norm(np.array(SHAPE) * SPACING))
    assert cut["surface_mm"].values[1] == found["surface_mm"].values[1], "the diagonal of the grid, whatever is cut"


def test_a_draw_is_repeatable_and_arms_of_one_draw_see_the_same_real_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    fit = utility._fit

    def spy(network: torch.nn.Module, loss: object, batches: utility._Batches, plan: Plan) -> torch.nn.Module:
        seen.append([float(next(network.parameters()).detach().sum())])
        batch = batches.batch
        monkeypatch.setattr(utility._Batches, "batch", lambda _, size: _noted(batch(size), seen[-1]))
        return fit(network, loss, batches, plan)  # type: ignore[arg-type]

    def _noted(pair: tuple[torch.Tensor, torch.Tensor], into: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        into.extend(float(image.sum()) for image in pair[0])
        monkeypatch.undo()
        monkeypatch.setattr(utility, "_fit", spy)
        return pair

    monkeypatch.setattr(utility, "_fit", spy)
    synthetic = made(5, seed=2)
    experiment = segmentation(Plan(steps=1, batch=16), synthetic=synthetic)
    experiment.run([ARMS["real"], ARMS["real"], ARMS["synthetic"], ARMS["synthetic only"]], draws=[3])
    one, again, mixed, only = seen
    assert one == again, "the same weights, the same scans"
    assert one[0] == mixed[0] == only[0], "all arms begin with the same weights"
    shared = [a == b for a, b in zip(one[1:], mixed[1:], strict=True)]
    assert 3 < sum(shared) < 13, "half of the scans, in the same places"
    made_up = {round(float(image.astype(np.float32).sum()), 3) for image in synthetic.images}
    assert {round(value, 3) for value in only[1:]} <= made_up
    others = {round(value, 3) for value, same in zip(mixed[1:], shared, strict=True) if not same}
    assert others <= made_up


def test_shuffled_labels_belong_to_other_scans() -> None:
    experiment = segmentation(synthetic=made(12, seed=2))
    box = utility._box([experiment.real])
    right, wrong = (experiment._extra(ARMS[name], box, seed=1) for name in (HEADLINE, "classical+shuffled"))
    assert all(torch.equal(a, b) for a, b in zip(right.images, wrong.images, strict=True))
    same = [torch.equal(a, b) for a, b in zip(right.targets, wrong.targets, strict=True)]
    assert sum(same) < 6
    assert sorted(float(one.sum()) for one in right.targets) == sorted(float(one.sum()) for one in wrong.targets)


def test_arms_are_those_whose_scans_are_there() -> None:
    names = [arm.name for arm in arms_with(tuple(ARMS), ("synthetic",))]
    assert names == [name for name in ARMS if name != "classical+reconstructions"]
    assert [arm.name for arm in arms_with(tuple(ARMS), ())] == ["real", "duplicated", "classical"]
    assert all(arm.against in ARMS for arm in ARMS.values() if arm.name != "real")


def test_classical_augmentation_keeps_labels_whole_and_follows_its_seed() -> None:
    scans = made(20)
    chain = classical(mirror=True, binary=False)

    def run(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        chain.set_random_state(seed)
        pairs = zip(scans.images, scans.label_maps, strict=True)  # type: ignore[arg-type]
        items = [
            {"image": torch.from_numpy(a.astype(np.float32)), "label": torch.from_numpy(b.astype(np.float32))}
            for a, b in pairs
        ]
        return [(one["image"].as_tensor(), one["label"].as_tensor()) for one in map(chain, items)]

    first, again, other = run(1), run(1), run(2)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))
    assert all(set(label.unique().tolist()) <= {0.0, 1.0} for _, label in first)
    moved = [
        not torch.equal(label[0], torch.from_numpy(scans.label_maps[i, 0]).float())
        for i, (_, label) in enumerate(first)
    ]  # type: ignore[index]
    assert 0 < sum(moved) < 20


def test_shapes_stay_binary() -> None:
    chain = classical(mirror=False, binary=True).set_random_state(0)
    shape = torch.from_numpy(made(1).label_maps[0].astype(np.float32))  # type: ignore[index]
    assert all(set(chain({"image": shape})["image"].unique().tolist()) <= {0.0, 1.0} for _ in range(20))


def test_what_a_task_cannot_do_without() -> None:
    real = made(4)
    with pytest.raises(InputError, match="label map") as problem:
        Segmentation.of(real, [replace(real, label_maps=None)], spacing=SPACING)
    assert problem.value.code == "no_labels"
    with pytest.raises(InputError, match="label values \\[2\\]"):
        Segmentation.of(real, [replace(real, label_maps=2 * real.label_maps)], spacing=SPACING)  # type: ignore[operator]
    with pytest.raises(InputError, match="two or more"):
        Classification.of(real, [real])
    with pytest.raises(InputError, match="a, b"):
        Classification.of(made(4, classes=("a", "b")), [made(4, classes=("a", "c"))])
