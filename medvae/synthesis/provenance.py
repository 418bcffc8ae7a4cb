"""Where a synthetic scan comes from: how it was generated, from which training scans, in which unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.synthesis.draws import new_label_values
from medvae.synthesis.to_scan import has_real_scale, units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Sample, Synthesizer


_IMAGES_ONLY = (
    "not written: the decoder generates images only; label maps are decoded by models of the networks `joint` and"
    " `deform` that were trained with some, and the samplers `classical` and `anatomy` give those of their sources"
)


def describe(sample: Sample, synthesizer: Synthesizer) -> dict[str, Any]:
    """How a sample was generated: enough to generate it again with the same model, as plain data for its sidecar."""
    scale = sample.intensity
    return {
        "sampler": synthesizer.settings.sampler,
        "class": sample.label,
        "conditions": sample.conditions,
        "sources": list(sample.sources),
        "seed": synthesizer.seed,
        "index": sample.index,
        "draw": sample.attempt + 1,
        "parameters": sample.parameters,
        "settings": synthesizer.settings.model_dump(mode="json"),
        "texture": synthesizer.texture is not None,
        "units": unit_text(synthesizer.model),
        "intensity": {"from": sample.intensity_from, "offset": scale.offset, "scale": scale.scale},
        "model": synthesizer.model.hash,
    }


def source_subject(sample: Sample, model: Model) -> str | None:
    """The subject that a sample is derived from; None where there is none, or more than one."""
    subject_of = dict(zip(model.latents.ids, model.latents.subjects, strict=True))
    subjects = {subject_of[one] for one in sample.sources}
    return subjects.pop() if len(subjects) == 1 else None


def donor_shares(sample: Sample) -> list[float]:
    """The share of the image that is from each source, where images are altered; empty for decoded images.

    A sampler that mixes several scans says it in its parameters, as `donor_share`.
    """
    if sample.z is not None:
        return []
    said: list[float] = sample.parameters.get("donor_share", [])
    return said or [1.0] * (len(sample.sources) == 1)


def is_derived(sample: Sample, model: Model) -> bool:
    """Whether a sample is altered scans by construction, with their donors named: it is theirs, and not a copy."""
    return source_subject(sample, model) is not None or bool(donor_shares(sample))


def whose(samples: int, *, one: int, several: int) -> Iterator[str]:
    """Whose data samples are, in words: a warped patient is still that patient, flagged as a near-copy or not.

    Args:
        samples: how many there are.
        one: number of samples derived from one subject.
        several: number of samples derived from several subjects.
    """
    if one:
        what = "derived from a patient (sources in audit.csv): treat each as that person's data"
        yield f"{one} of {samples} samples {what}"
    if several:
        yield f"{several} of {samples} samples derived from several training subjects (sources in audit.csv)"


def unit_text(model: Model) -> str:
    """The unit of the values, in words."""
    if not has_real_scale(model):
        return "robust z (the model keeps no training scan, so no real scale is known)"
    return units(model)


def no_label_maps(synthesizer: Synthesizer) -> str | None:
    """Why there are no label maps; None where there are some."""
    model, decoded = synthesizer.model, synthesizer.space == "latent"
    if decoded and model.vae.labels:
        return None
    if new_label_values(synthesizer.fitted):
        return None
    if model.training.label_maps is None:
        return "not written: the model keeps no label maps of its training scans"
    return _IMAGES_ONLY if decoded else None
