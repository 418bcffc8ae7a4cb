"""The settings of a run: frozen, typed, and strict about unknown keys. Presets are YAML files in `configs/`."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from medvae import plugins
from medvae.errors import SettingsError
from medvae.refusal import explain
from medvae.written import changes, keys, merge, over, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from medvae.plugins import Kind

M = TypeVar("M", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Orientation = Literal["RAS", "LAS", "RPS", "LPS", "RAI", "LAI", "RPI", "LPI"]
Spread = Literal["shared", "learned", "voxel"]
Folds = Literal[0, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("the second value must be above the first")
    return ends


class Frozen(BaseModel):
    """Base of all settings: immutable, finite, unknown keys refused, `repr` shows what differs from the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __repr_args__(self) -> Any:
        defaults = type(self).model_fields
        return [
            (k, v)
            for k, v in super().__repr_args__()
            if k is None or v != defaults[k].get_default(call_default_factory=True)
        ]


class Empty(Frozen):
    """Settings of a plug-in that has none."""


class ReadSettings(Frozen):
    """How files are read, and which of them are used."""

    modality: Literal["CT", "MR", "PT", "SHAPE"] | None = Field(None, description="modality where the header has none")
    volume: int | None = Field(None, ge=0, description="volume of a 4D file to read, from 0")
    assume_orientation: Orientation | None = Field(None, description="orientation where the header has none, e.g. RAS")
    fill_non_finite: bool = Field(False, description="fill NaN and infinite voxels, and exclude them from every map")
    split_mixed: bool = Field(False, description="split a mixed DICOM series by the tags that differ")
    on_doubtful: Literal["accept", "reject"] = Field(
        "accept", description="scans of doubtful alignment or tissue contrast: accept with a warning, or reject"
    )
    max_gib: float = Field(8.0, gt=0, description="largest volume that is read, GiB in memory")


class PrepareSettings(Frozen):
    """How a scan is brought onto the model's grid."""

    modality: Literal["CT", "MR", "PT", "SHAPE"] | None = Field(None, description="modality of the scans")
    spacing: tuple[Positive, Positive, Positive] = Field(
        (2.0, 2.0, 2.0), description="voxel size of the model's grid, mm"
    )
    shape: tuple[Count, Count, Count] = Field((96, 112, 96), description="voxels of the model's grid along R, A, S")
    align: Literal["none", "mni152"] = Field("none", description="template for registration (rigid, affine): mni152")
    centre: Literal["image", "foreground"] = Field(
        "image", description="centre of the grid for scans that are not registered: image or foreground"
    )
    foreground: Literal["nonzero", "air", "whole"] = Field(
        "nonzero", description="foreground without a mask; nonzero: not background; air: not air; whole: all voxels"
    )
    air_below: float = Field(-500.0, description="with foreground 'air': values below this are air (HU for CT)")
    contrast: Literal["t1", "any"] = Field(
        "t1", description="MR aligned to mni152; t1: warn of scans without the tissue contrast of T1; any: no warning"
    )
    field: Literal["none", "n4"] = Field("none", description="receive field of MR; n4: estimated by N4 and divided out")
    intensity: Literal["robust_z", "window", "none"] = Field("robust_z", description="intensity normalisation")
    window: Annotated[tuple[float, float], AfterValidator(_rising)] = Field(
        (-1000.0, 1000.0), description="with intensity 'window': what becomes -1 and 1"
    )


class RandomizeSettings(Frozen):
    """Random augmentation during training. Lengths in mm, angles in degrees; a probability of 0 disables a step."""

    spatial: float = Field(0.8, ge=0, le=1, description="probability of the affine and elastic warp")
    rotate: float = Field(5.0, ge=0, description="largest rotation about each axis, degrees")
    scale: float = Field(0.05, ge=0, lt=1, description="largest relative scaling")
    shift: float = Field(4.0, ge=0, description="largest translation, mm")
    elastic: float = Field(3.0, ge=0, description="standard deviation of the control point displacements, mm")
    control: int = Field(8, ge=4, description="control points per axis")
    mirror: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip")
    gamma: float = Field(0.3, ge=0, le=1, description="probability of a gamma transform")
    bias: float = Field(0.3, ge=0, le=1, description="probability of a smooth bias field")
    blur: float = Field(0.1, ge=0, le=1, description="probability of a blur")
    noise: float = Field(0.1, ge=0, le=1, description="probability of added noise")
    corrupt_noise: float = Field(0.0, ge=0, le=1, description="probability of coarse noise in the network's input")
    corrupt_boxes: float = Field(0.0, ge=0, le=1, description="probability of erased boxes in the network's input")
    corrupt_anomalies: float = Field(0.0, ge=0, le=1, description="probability of anomalies in the network's input")


class ModelSettings(Frozen):
    """Which network, with which options."""

    name: str = Field("spatial", description="network (see Networks)")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the network")
    conditions: tuple[str, ...] = Field(
        (), description="list columns that the network is conditioned on, e.g. [age, sex]"
    )


class LikelihoodSettings(Frozen):
    """What p(x|z) is."""

    family: str = Field("gaussian", description="family of p(x|z) (see Likelihoods)")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the family")
    spread: Spread = Field(
        "shared",
        description="shared: one analytic variance (σ-VAE); learned: one parameter; voxel: an output of the decoder",
    )


class TrainSettings(Frozen):
    """How a VAE is fitted."""

    minutes: float | None = Field(None, gt=0, description="time budget of the training, minutes; overrides steps")
    steps: int = Field(2000, ge=1, description="optimiser steps; set without minutes, they replace a time budget")
    plan: tuple[tuple[int, int], ...] = Field((), description="(step, planned total) pairs of a timed run; repeats it")
    batch: int = Field(2, ge=1, description="scans per step and process")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="fraction of the steps with a rising learning rate")
    clip: float = Field(1.0, gt=0, description="gradient norm limit, for the loss per foreground voxel")
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the averaged weights, which are the ones saved")
    beta: float = Field(1.0, gt=0, description="weight of the KL in training; scoring always uses 1")
    kl_warmup: float = Field(0.25, ge=0, lt=1, description="fraction of the steps in which beta rises from near 0")
    free_bits: float = Field(0.0, ge=0, description="nats per latent channel without penalty")
    drop_conditions: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="probability of hiding a condition during training, so that a missing one can be handled",
    )
    validation: float = Field(0.1, ge=0, lt=0.5, description="fraction of the subjects used for validation")
    validate_every: int = Field(100, ge=1, description="steps between two validations: one epoch")
    folds: Folds = Field(0, description="parts for cross-fitting: for each, a network trained without it; 0: none")
    patience: int = Field(0, ge=0, description="epochs without improvement before stopping; 0: no early stopping")
    precision: Annotated[Literal["auto", "32", "bf16"], BeforeValidator(str)] = Field(  # 32 is a number in YAML
        "auto", description="auto uses bf16 where it is faster"
    )
    keep_scans: int = Field(
        200, ge=0, description="prepared training scans saved in the model folder, for the copy screen"
    )
    keep_state: bool = Field(
        True, description="save the training state (five times the size of the weights), to train further"
    )
    randomize: RandomizeSettings = RandomizeSettings()


class DetectorSettings(Frozen):
    """Further networks: on the same scans, one learns to mark simulated anomalies, one to remove noise."""

    steps: int = Field(0, ge=0, description="optimiser steps, if no time budget is given; 0: no detector")
    share: float = Field(0.5, gt=0, lt=1, description="share of train.minutes that the detector gets, if there is one")
    plan: tuple[tuple[int, int], ...] = Field((), description="as train.plan, for the steps of the detector")
    channels: tuple[Count, ...] = Field(
        (16, 48, 128), min_length=2, description="channels per level, each half as fine"
    )
    batch: int = Field(2, ge=1, description="patches per step and process")
    patch: tuple[Count, Count, Count] = Field(
        (64, 64, 64), description="voxels of a patch along R, A, S; less where the grid is smaller"
    )
    lr: float = Field(2e-3, gt=0, description="peak learning rate of AdamW")


class LesionSettings(Frozen):
    """A further network: it learns the lesions that the label maps of the scans mark, for the sampler `lesion`."""

    steps: int = Field(0, ge=0, description="optimiser steps, in addition to train.minutes; 0: no lesions are learned")
    labels: tuple[int, ...] = Field(
        (),
        description="label values of lesions; new lesions get the first; none: all above 0, and new lesions get 1",
    )
    least: int = Field(3, ge=1, description="smallest lesion that is learned, voxels of the grid")
    latent: int = Field(16, ge=1, description="length of the latent vector")
    channels: tuple[Count, ...] = Field(
        (16, 32), min_length=1, max_length=3, description="channels per level, each half as fine"
    )
    batch: int = Field(16, ge=1, description="crops per step")
    lr: float = Field(4e-3, gt=0, description="peak learning rate of AdamW")


class DetectSettings(Frozen):
    """Which maps are written, and how they are scored."""

    maps: tuple[str, ...] = Field(
        ("residual_z", "residual", "atlas", "intensity"), description="maps to write (see Maps)"
    )
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="options per map, by name")
    draws: int = Field(8, ge=1, description="posterior draws, for maps that need them")
    top: float = Field(
        0.01, gt=0, le=1, description="the score of a scan is the mean of this fraction of its highest voxels"
    )
    healthy_fpr: float = Field(
        0.1, gt=0, le=10, description="candidates per healthy scan, which sets the mass that a region must exceed"
    )
    min_ml: float = Field(0.05, ge=0, description="smallest volume of a candidate, mL")
    montage: bool = Field(True, description="write a picture per scan")
    review: bool = Field(True, description="write a worklist and a page per scan, to be reviewed in a browser")
    dicom: bool = Field(
        False, description="write the first map and its candidates as DICOM objects, for scans read from DICOM"
    )
    fusion: bool = Field(
        False,
        description="write the first map as a DICOM series to be fused with the scan, and the picture, for scans read"
        " from DICOM",
    )


class AugmentSettings(Frozen):
    """How synthetic scans are generated."""

    sampler: str = Field("density", description="sampler (see Samplers)")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the sampler")
    classes: Literal["training", "balanced"] = Field(
        "training", description="class frequencies: as in the training scans, or balanced"
    )
    texture: bool = Field(False, description="add noise with the power spectrum and size of the residuals")
    conditions: dict[str, float | str | None] = Field(
        default_factory=dict, description="fixed conditions of all samples, e.g. {age: 70}; null: missing"
    )
    layout: str = Field("medvae", description="folders and lists of the synthetic set (see Layouts)")
    label_names: dict[int, str] = Field(
        default_factory=dict, description="names of the label map's values, e.g. {1: anterior}; for the lists"
    )
    reject: bool = Field(
        True, description="draw implausible samples again, and near-copies that are not derived from named donors"
    )
    review: bool = Field(True, description="write a worklist and a page per scan, to be reviewed in a browser")
    review_real: bool = Field(
        False, description="keep the nearest training scan for each page: the pages are then patient data"
    )


class Settings(Frozen):
    """All settings of a run."""

    read: ReadSettings = ReadSettings()
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    train: TrainSettings = TrainSettings()
    detector: DetectorSettings = DetectorSettings()
    lesions: LesionSettings = LesionSettings()
    detect: DetectSettings = DetectSettings()
    augment: AugmentSettings = AugmentSettings()
    seed: int = Field(0, ge=0, description="random seed")


def load_settings(
    config: str | Path | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    base: Settings | None = None,
) -> Settings:
    """Settings from a preset or YAML file, with `key=value` overrides on top.

    Args:
        config: name of a preset, or path of a YAML file, which may build on a preset (`base: brain-mri-t1`); None
            starts from `base` or the defaults.
        overrides: `section.key=value` texts, one or several; the value is read as YAML and typed by the setting. Or a
            mapping of values by `section.key`.
        base: settings to start from, e.g. those of a checkpoint.

    Raises:
        SettingsError: unknown preset, key or name, wrong type; the message names key, value and rule.

    Example:
        >>> settings = medvae.load_settings("brain-mri-t1", {"train.minutes": 30, "model.conditions": ["age"]})
        >>> settings = medvae.load_settings("brain-mri-t1", "train.minutes=30")
    """
    tree = {} if base is None else base.model_dump()
    if config is not None:
        tree = merge(tree, read_yaml(str(config)))
    if base is not None:  # how long a preset trains says nothing about a model that is trained
        tree = merge(tree, {"train": base.train.model_dump(include={"minutes", "steps", "plan"})})
    where = "the settings" if config is None else f"{config} with your changes" if overrides else str(config)
    return validate(Settings, over(tree, reduce(merge, changes(overrides), {})), where=where)


load = load_settings  # inside the package, where the module says what is loaded


def adjust(
    base: Settings,
    config: str | Path | None,
    overrides: Sequence[str] | Mapping[str, Any],
    *,
    uses: tuple[str, ...] | None = None,
) -> Settings:
    """Settings of a checkpoint with a user's changes on top; what made the checkpoint cannot be changed.

    Args:
        base: of the checkpoint.
        config: name of a preset, or path of a YAML file; how long it trains is ignored.
        overrides: as those of `load`.
        uses: sections that have an effect here, e.g. ("augment", "seed"); an override of another one is refused. None
            allows all.

    Raises:
        SettingsError: as `load`; a change of preparation, model, likelihood or training; an override without effect.
    """
    changed = load(config, overrides, base=base)
    for section in ("prepare", "model", "likelihood", "train"):
        if getattr(changed, section) != getattr(base, section):
            message = f"{section}.* belongs to the model and cannot be changed after training"
            raise SettingsError(message, hint="leave it out here, or train a model with it")
    for key in keys(overrides):
        if uses is not None and key.partition(".")[0] not in uses:
            hint = f"leave it out; settings that are used here: {', '.join(uses)}"
            raise SettingsError(f"the setting {key!r} has no effect here", hint=hint)
    return changed


def validate(kind: type[M], tree: dict[str, Any], *, where: str) -> M:
    """`tree` as settings of a kind, or a SettingsError that names the key, the value and the rule."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise explain(kind, error, where=where) from None


def configure(kind: Kind, name: str, options: Mapping[str, Any]) -> tuple[ModuleType, BaseModel]:
    """The plug-in and its `Settings` made from `options`; a plug-in without `Settings` takes no options.

    Raises:
        SettingsError: an unknown plug-in or option, or one that cannot be imported.
    """
    module = plugins.load(kind, name)
    return module, validate(getattr(module, "Settings", Empty), dict(options), where=f"{kind}.{name}")
