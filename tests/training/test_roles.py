"""Which subjects are held out for validation."""

from __future__ import annotations

from medvae.training.roles import held_out


def test_validation_is_by_subject_and_independent_of_order() -> None:
    subjects = [f"s{i}" for i in range(20)] * 2
    aside = held_out(subjects, share=0.1, seed=0)
    assert len(aside) == 2
    assert held_out(subjects[::-1], share=0.1, seed=0) == aside
    assert held_out(subjects, share=0.1, seed=1) != aside
    assert held_out(["a", "b"], share=0.1, seed=0) == frozenset(), "too few to hold one out"
    assert held_out(subjects, share=0, seed=0) == frozenset()
    assert len(held_out(["a", "b", "c"], share=0.1, seed=0)) == 1
