"""Synthetic scans in Python: `medvae.synthesize`."""

from __future__ import annotations

import logging
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from medvae import plugins
from medvae.checkpoint.folder import load
from medvae.checkpoint.model import Model
from medvae.errors import ScanError, SettingsError
from medvae.run.work import Progress, ignore
from medvae.settings import AugmentSettings, adjust, validate
from medvae.synthesis import generate, plausible
from medvae.synthesis.synthetic import SampleJob, SyntheticSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from medvae.settings import Settings
    from medvae.synthesis.base_layout import BaseLayout
    from medvae.synthesis.synthetic import Synthetic

log = logging.getLogger(__name__)
USES = ("augment", "seed")  # settings that have an effect on synthetic scans


def synthesize(
    model: Model | Path | str,
    count: int,
    *,
    sampler: str | None = None,
    options: Mapping[str, Any] | None = None,
    classes: Literal["training", "balanced"] | None = None,
    texture: bool | None = None,
    conditions: Mapping[str, float | str | None] | None = None,
    seed: int | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] = ignore,
) -> Iterator[Synthetic]:
    """Generate synthetic scans, one at a time; `save` writes the same files as `medvae augment`.

    Scan number i depends on the model, the settings and the seed only, not on `count`. What is left at None is taken
    from the model's settings (`augment.*` and `seed`). What is implausible is drawn again; a sample all of whose draws
    are rejected is left out, with a warning in the log. Samples are screened for near-copies of training scans; that is
    no proof of anonymity.

    Args:
        model: the model, or its folder.
        count: how many scans.
        sampler: name of a sampler, e.g. "density", "prior", "jitter", "interpolate", "classical".
        options: of the sampler.
        classes: shares of the classes: as among the training scans, or all equal.
        texture: add noise with the spectrum and size of the residuals.
        conditions: fixed conditions of all samples by column, e.g. `{"age": 70}`; None is a missing value. Columns that
            are not fixed vary as among the training scans.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or "cuda:N", where `model` is a folder.
        on_progress: called while the copy screen is fitted, before the first scan is generated.

    Returns:
        An iterator of `Synthetic`: `image` is a `Scan` with `data` `(X, Y, Z)` along R, A, S in the unit of the
        training scans, on a grid in RAS+ mm; `label_map` is int16 on the same grid, or None.

    Raises:
        ModelError: the folder cannot be read, or the model holds too few training scans for the sampler.
        SettingsError: an unknown sampler, option or condition, or a value that is not allowed.
        RunError: the device does not exist.

    Example:
        >>> for sample in medvae.synthesize("model", 2):
        ...     folder = sample.save("synthetic")
        >>> sample.id, sample.image.data.ndim
        ('synthetic-00001', 3)
    """
    require_whole(count)
    given = {"sampler": sampler, "options": options, "classes": classes, "texture": texture, "conditions": conditions}
    whole = whole_set(model, given, seed=seed, device=device, on_progress=on_progress)
    _ = whole.screen  # what takes long, and whatever is wrong, comes before the first scan
    return _scans(whole, count)


def whole_set(
    model: Model | Path | str,
    given: Mapping[str, Any],
    *,
    seed: int | None,
    device: str,
    on_progress: Callable[[Progress], None] = ignore,
) -> SyntheticSet:
    """The set of a model, with changes of `augment.*` by name; what is None stays as the model has it.

    The copy screen is fitted when it is first needed.
    """
    trained = model if isinstance(model, Model) else load(model, device=device)
    settings = _changed(trained.settings.augment, {name: one for name, one in given.items() if one is not None})
    synthesizer = generate.fit(trained, settings, seed=trained.settings.seed if seed is None else seed)
    return SyntheticSet(synthesizer, plausible.fit(trained), make_layout(synthesizer), on_progress)


def with_screen(
    synthesizer: generate.Synthesizer,
    *,
    layout: BaseLayout | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> SyntheticSet:
    """The set of synthetic scans, with its copy screen fitted; takes one decoding per kept training scan."""
    written = layout or make_layout(synthesizer)
    whole = SyntheticSet(synthesizer, plausible.fit(synthesizer.model), written, on_progress)
    _ = whole.screen
    return whole


def make_layout(synthesizer: generate.Synthesizer, *, merge_with: Path | None = None) -> BaseLayout:
    """The layout of the settings, with the real set that the samples are appended to.

    Raises:
        SettingsError: there is none of that name, or the samples cannot be written in it.
        InputError: the real set cannot be read, or the samples do not fit to it.
    """
    kind = plugins.load("layouts", synthesizer.settings.layout).Layout
    layout: BaseLayout = kind(synthesizer, None if merge_with is None else kind.read(merge_with))
    layout.check()
    return layout


def _scans(whole: SyntheticSet, count: int) -> Iterator[Synthetic]:
    for index in range(count):
        try:
            scan = whole.scan(index)
        except ScanError as problem:
            log.warning("%s is left out: %s", SampleJob(index).id, problem)
        else:
            yield scan


def augment_settings(base: Settings, config: str | None, overrides: tuple[str, ...]) -> Settings:
    """Settings of a model with a user's changes; options of the model's sampler do not apply to another one.

    Raises:
        SettingsError: an unknown setting, or one that has no effect on synthetic scans.
    """
    changed = adjust(base, config, overrides, uses=USES)
    if changed.augment.sampler == base.augment.sampler:
        return changed
    without = base.augment.model_copy(update={"options": {}})
    return adjust(base.model_copy(update={"augment": without}), config, overrides, uses=USES)


def require_whole(count: Any) -> None:
    """Raise a SettingsError unless a count of scans is a whole number of at least 0."""
    if not isinstance(count, Integral) or count < 0:
        raise SettingsError(f"count is {count!r}: a whole number of at least 0 is needed", hint="pass e.g. count=10")


def _changed(base: AugmentSettings, given: Mapping[str, Any]) -> AugmentSettings:
    """As `augment_settings`, for values instead of texts."""
    tree = base.model_dump()
    if given.get("sampler", base.sampler) != base.sampler:
        tree["options"] = {}
    return validate(AugmentSettings, {**tree, **given}, where="synthesize")
