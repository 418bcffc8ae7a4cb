"""Compare what `augment` wrote with real scans: fidelity, diversity, copying, and what a network gains from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from medvae.checkpoint.folder import find_device, load
from medvae.checkpoint.model import Model
from medvae.errors import InputError, SettingsError
from medvae.evaluation.augment_report import fidelity_picture, markdown, nearest_picture, utility_picture
from medvae.evaluation.comparison import Sets, copying, diversity, fidelity
from medvae.evaluation.features import ABOUT
from medvae.evaluation.folder import FOLDER
from medvae.evaluation.image_set import ImageSet
from medvae.evaluation.nested import nested_difference, nested_mean
from medvae.evaluation.plan import ARMS, Plan, arms_with
from medvae.evaluation.synthetic_run import Reader, SyntheticRun, check_apart, not_in
from medvae.evaluation.tasks import Classification, Segmentation
from medvae.evaluation.utility import Experiment
from medvae.io.files import atomic, write_json, write_text
from medvae.plugins import suggest
from medvae.run.record import disk_errors
from medvae.run.work import Progress, ignore
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from medvae.cohort.find import Wanted
    from medvae.evaluation.plan import Arm
    from medvae.evaluation.tasks import Task
    from medvae.evaluation.utility import Trial

Utility = Literal["segmentation", "classification"]
FEWEST_TEST = 2  # subjects


@dataclass(frozen=True, eq=False)
class AugmentEvaluation:
    """How synthetic scans compare with real ones.

    Attributes:
        out: folder of `augment.json`, `augment.md`, `fidelity.png`, `nearest.png` and maybe `utility.png`.
        tree: what `augment.json` has.
        lines: the text for a person.
    """

    out: Path
    tree: Mapping[str, Any] = field(repr=False)
    lines: tuple[str, ...]


def evaluate_augment(
    out: Path | str,
    real: Wanted | Iterable[Wanted],
    *,
    holdout: Wanted | Iterable[Wanted] | None = None,
    model: Model | Path | str | None = None,
    utility: Utility | None = None,
    arms: Sequence[str] | None = None,
    draws: int = 10,
    plan: Plan | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] = ignore,
) -> AugmentEvaluation:
    """Compare the synthetic scans of a run of `medvae augment` with real scans, and measure what a network gains.

    `medvae evaluate augment` does the same.

    Args:
        out: output folder of `augment`; the evaluation is written into its folder `evaluation`.
        real: the scans that the model was trained on: all that `medvae.find` takes.
        holdout: real scans of other subjects: the reference of all metrics, and the test set of `utility`. Without
            them copies of training scans look perfect.
        model: the model, or its folder: held-out scans are then compared with all that it was trained on, and there
            is an arm with its reconstructions.
        utility: train small networks for this task, on real scans with and without synthetic ones.
        arms: names of those to train (`medvae.evaluation.plan.ARMS`); None for all that can be.
        draws: trainings per arm, with weights, order and augmentation of their own.
        plan: of each training: steps, batch, whether left and right may be flipped.
        device: where networks are trained: "auto", "cpu", "cuda" or "cuda:N". On a GPU a repeated run differs in the
            last digits.
        on_progress: called after each scan and each training.

    Returns:
        The folder `evaluation`, the contents of its `augment.json` (`tree`), and the report as text (`lines`).

    Raises:
        InputError: no run of `augment`, a run of another model, too few scans, no label maps or classes for the task;
            `subjects_overlap` for held-out scans that something was trained on.
        SettingsError: an unknown task or arm, a task without held-out scans, reconstructions without a model, no arm,
            draws or steps.
        OutputError: the folder cannot be written.
        RunError: the device does not exist.

    Example:
        >>> medvae.evaluate_augment("synthetic", "train.csv", holdout="test.csv").tree["fidelity"]["scans"]
        10
    """
    wanted = _check(utility, arms, holdout=holdout is not None, draws=draws, plan=plan or Plan())
    run, where = SyntheticRun.read(Path(out)), torch.device(find_device(device))
    trained = model if isinstance(model, Model | None) else load(Path(model), device="cpu")
    run.check_model(trained)
    preparation = run.preparation(trained)
    reader = Reader(preparation, ReadSettings() if trained is None else trained.settings.read, on_progress)
    sets = _read(reader, run, real, holdout)
    if sets.held_out is not None:
        check_apart(sets.training, sets.held_out, run, model=trained)
    settings = preparation.settings
    chosen = replace(plan or Plan(), binary=settings.modality == "SHAPE")
    experiment = None
    if utility is not None and sets.held_out is not None:  # first: what is missing is said before anything is measured
        extras = _extras(utility, sets, trained)
        possible = _possible(wanted, extras, named=arms is not None)
        task = _task(utility, sets, extras, spacing=settings.spacing)
        experiment = Experiment(task, sets.training, sets.held_out, extras, chosen, where)
    tree = _tree(sets, run, trained, seed=chosen.seed)
    if experiment is not None:
        tree["utility"] = _utility(experiment, possible, draws, on_progress)
    return _write(tree, sets, Path(out) / FOLDER, spacing=settings.spacing)


def _check(utility: str | None, arms: Sequence[str] | None, *, holdout: bool, draws: int, plan: Plan) -> Sequence[str]:
    """The names of the arms, each once.

    Raises:
        SettingsError: an unknown task or arm, no arm, draws or steps, or a task without held-out scans.
    """
    if utility is not None and utility not in get_args(Utility):
        raise SettingsError(f"there is no task {utility!r}", hint=suggest(utility, get_args(Utility)))
    if utility is not None and not holdout:
        raise SettingsError("utility is measured on held-out scans", hint="pass holdout=")
    if unknown := [name for name in arms or () if name not in ARMS]:
        raise SettingsError(f"there is no arm {unknown[0]!r}", hint=suggest(unknown[0], tuple(ARMS)))
    if arms is not None and not arms:
        raise SettingsError("arms is empty: at least 1 is needed", hint="name some, or leave out arms= for all")
    if draws < 1:
        raise SettingsError(f"draws is {draws}: at least 1 is needed", hint="pass e.g. draws=10")
    if plan.steps < 1:
        raise SettingsError(f"plan.steps is {plan.steps}: at least 1 is needed", hint="pass e.g. plan=Plan(steps=500)")
    return tuple(ARMS if arms is None else dict.fromkeys(arms))


def _read(
    reader: Reader, run: SyntheticRun, real: Wanted | Iterable[Wanted], holdout: Wanted | Iterable[Wanted] | None
) -> Sets:
    training = reader.real(real, "real training scans")
    held_out = None if holdout is None else reader.real(holdout, "held-out scans")
    return Sets(training, held_out, reader.samples(run))


def _extras(utility: Utility, sets: Sets, model: Model | None) -> dict[str, ImageSet]:
    """What arms have besides the real scans; no reconstructions where the model kept too little of its scans."""
    extras = {"synthetic": sets.synthetic}
    if model is None or not model.training.ids:
        return extras
    again = ImageSet.from_reconstructions(model)
    usable = again.label_maps is not None if utility == "segmentation" else bool(again.class_names)
    return {**extras, "reconstructions": again} if usable else extras


def _possible(wanted: Sequence[str], extras: Mapping[str, ImageSet], *, named: bool) -> list[Arm]:
    """The arms that can be trained.

    Raises:
        SettingsError: one that was asked for by name cannot.
    """
    possible = arms_with(wanted, extras)
    missing = [name for name in wanted if name not in {arm.name for arm in possible}]
    if named and missing:
        hint = "pass a model= that keeps its training scans and their labels, or leave the arm out"
        raise SettingsError(f"there are no reconstructions for the arm {missing[0]!r}", hint=hint)
    return possible


def _tree(sets: Sets, run: SyntheticRun, model: Model | None, *, seed: int) -> dict[str, Any]:
    """`augment.json`, without the utility."""
    more = not_in(sets.training, run, model=model)
    notes = []
    if more:
        notes.append(f"the samples depend on {more} training scans that are not among the real ones: name them all")
    if sets.held_out is None:
        notes.append("no held-out scans: the reference is half of the training scans, and their copies look perfect")
    return {
        "synthetic": len(sets.synthetic),
        "real": len(sets.training),
        "held_out": None if sets.held_out is None else len(sets.held_out),
        "notes": notes,
        "features": ABOUT,
        "fidelity": fidelity(sets, seed=seed),
        "diversity": diversity(sets),
        "screen": run.screened,
        "copying": copying(sets, seed=seed),
        "utility": None,
    }


def _task(name: str, sets: Sets, extras: Mapping[str, ImageSet], *, spacing: tuple[float, float, float]) -> Task:
    """The task of a name.

    Raises:
        InputError: label maps or classes are missing, or too few test subjects.
    """
    assert sets.held_out is not None
    others = [sets.held_out, *extras.values()]
    if len(set(sets.held_out.subjects)) < FEWEST_TEST:
        raise InputError("one held-out subject", code="too_few", hint="use at least 20 for a meaningful interval")
    if name == "segmentation":
        return Segmentation.of(sets.training, others, spacing=spacing)
    return Classification.of(sets.training, others)


def _utility(
    experiment: Experiment, arms: Sequence[Arm], draws: int, on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """Train all arms; means and paired differences, as `utility` in `augment.json`."""
    trials = experiment.run(arms, draws=range(draws), on_progress=on_progress)
    plan, subjects = experiment.plan, experiment.test.subjects
    by_arm = {arm.name: [one for one in trials if one.arm == arm.name] for arm in arms}
    names = list(trials[0].measures)
    pairs = [arm for arm in arms if arm.against in by_arm]
    return {
        "task": experiment.task.name,
        "draws": draws,
        "steps": plan.steps,
        "batch": plan.batch,
        "share": plan.share,
        "mirror": plan.mirror,
        "test_scans": len(subjects),
        "test_subjects": len(set(subjects)),
        "measures": names,
        "arms": {arm.name: _of_arm(arm, by_arm[arm.name], names, subjects) for arm in arms},
        "differences": {
            arm.name: {"against": arm.against, "means": _gains(by_arm[arm.name], by_arm[arm.against], names, subjects)}
            for arm in pairs
        },
    }


def _of_arm(arm: Arm, trials: Sequence[Trial], names: Sequence[str], subjects: Sequence[str]) -> dict[str, Any]:
    means = {name: nested_mean([one.measures[name] for one in trials], subjects=subjects).to_json() for name in names}
    each = {
        name: [nested_mean([one.measures[name]], subjects=subjects, count=1).to_json()[0] for one in trials]
        for name in names
    }
    return {"about": arm.about, "means": means, "trainings": each}


def _gains(
    ours: Sequence[Trial], theirs: Sequence[Trial], names: Sequence[str], subjects: Sequence[str]
) -> dict[str, Any]:
    return {
        name: nested_difference(
            [one.measures[name] for one in ours], [one.measures[name] for one in theirs], subjects=subjects
        ).to_json()
        for name in names
    }


def _write(tree: dict[str, Any], sets: Sets, place: Path, *, spacing: tuple[float, float, float]) -> AugmentEvaluation:
    with disk_errors(place):
        write_json(place / "augment.json", tree)  # before anything is drawn: trainings take long
        write_text(place / "augment.md", markdown(tree))
        pictures = {"fidelity.png": fidelity_picture(tree)}
        if tree["utility"] is not None:
            pictures["utility.png"] = utility_picture(tree["utility"])
        nearest_picture(sets, spacing=spacing).write(place)
        for name, picture in pictures.items():
            with atomic(place / name) as partial:
                partial.write_bytes(picture)
    written = ", ".join(["augment.json", "augment.md", "nearest.png", *pictures])
    return AugmentEvaluation(place, tree, (*markdown(tree).splitlines(), f"{place}: {written}"))
