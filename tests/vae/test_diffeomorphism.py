"""Maps of a grid: exp against a rotation that is known, its inverse, composition, coarse grids, the determinant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medvae.vae.diffeomorphism import compose, exponential, force, jacobian, refine, warp

GRID = (20, 24, 16)


def positions(size: tuple[int, ...] = GRID) -> torch.Tensor:
    """Voxel positions `(3, X, Y, Z)`, from the centre of the grid."""
    lines = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def smooth(seed: int, *, size: float = 2.0) -> torch.Tensor:
    """A smooth field `(1, 3, *GRID)` of a few voxels that vanishes at the border."""
    points = torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(seed))
    edge = [torch.sin(np.pi * (torch.arange(n) + 0.5) / n) for n in GRID]
    inside = edge[0][:, None, None] * edge[1][None, :, None] * edge[2]
    return size * refine(points, GRID) * inside


def inner(values: torch.Tensor, by: int = 5) -> torch.Tensor:
    """Away from the border, where maps leave the grid."""
    return values[..., by:-by, by:-by, by:-by]


def test_exp_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    matrix = torch.tensor([[0.05, -0.2, 0.0], [0.2, 0.0, 0.1], [0.0, -0.1, -0.1]])
    x = positions()
    velocity = torch.einsum("ij,jxyz->ixyz", matrix, x)[None]
    wanted = torch.einsum("ij,jxyz->ixyz", torch.matrix_exp(matrix) - torch.eye(3), x)[None]
    torch.testing.assert_close(inner(exponential(velocity, GRID), 6), inner(wanted, 6), atol=0.02, rtol=0.02)


def test_the_inverse_is_exp_of_the_negative_velocity() -> None:
    velocity = smooth(0)
    there, back = exponential(velocity, GRID), exponential(-velocity, GRID)
    assert there.abs().max() > 1.5
    assert compose(back, there, GRID).abs().max() < 0.1
    assert compose(there, back, GRID).abs().max() < 0.1


def test_composition_applies_the_inner_map_first() -> None:
    outer = torch.tensor([[1.2, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.9]])
    first = torch.tensor([[1.0, -0.2, 0.0], [0.2, 1.0, 0.0], [0.0, 0.0, 1.0]])
    maps = [torch.einsum("ij,jxyz->ixyz", one - torch.eye(3), positions())[None] for one in (outer, first)]
    wanted = torch.einsum("ij,jxyz->ixyz", outer @ first - torch.eye(3), positions())[None]
    torch.testing.assert_close(inner(compose(*maps, GRID), 4), inner(wanted, 4), atol=1e-4, rtol=1e-4)


def test_a_shift_reads_from_the_place_it_points_to_along_the_right_axis() -> None:
    image = torch.arange(float(np.prod(GRID))).view(1, 1, *GRID)
    for axis in range(3):
        u = torch.zeros(1, 3, *GRID)
        u[:, axis] = 1.0
        shifted = warp(image, u, GRID)
        torch.testing.assert_close(shifted.narrow(axis + 2, 0, 8), image.narrow(axis + 2, 1, 8), atol=0.01, rtol=1e-5)


def test_a_coarse_grid_lies_on_the_fine_one() -> None:
    """A linear displacement keeps its values at the same places, and a coarse velocity gives the fine map."""
    x = positions()
    coarse = torch.nn.functional.avg_pool3d(x[None], 2)
    torch.testing.assert_close(inner(refine(coarse, GRID), 1), inner(x[None], 1))
    velocity = smooth(3)
    fine = exponential(velocity, GRID)
    from_coarse = refine(exponential(torch.nn.functional.avg_pool3d(velocity, 2), GRID), GRID)
    assert (fine - from_coarse).abs().mean() < 0.2 * fine.abs().mean()


@pytest.mark.parametrize("matrix", [np.diag([1.2, 0.5, 2.0]), np.array([[1, 0.3, 0], [0, 1, 0.2], [0.5, 0, 1.0]])])
def test_the_determinant_of_an_affine_map_is_that_of_its_matrix(matrix: np.ndarray) -> None:  # type: ignore[type-arg]
    change = torch.from_numpy(matrix - np.eye(3)).float()
    u = torch.einsum("ij,jxyz->ixyz", change, positions())[None]
    found = jacobian(u)
    assert found.shape == (1, *(n - 1 for n in GRID))
    torch.testing.assert_close(found, torch.full_like(found, float(np.linalg.det(matrix))), rtol=1e-3, atol=1e-3)


def test_the_determinant_knows_a_fold_and_exp_has_none() -> None:
    rough = smooth(5, size=8.0)
    assert jacobian(rough).min() < 0, "added as a displacement it folds"
    assert jacobian(exponential(rough, GRID)).min() > 0, "integrated it does not"


def test_the_force_points_to_where_the_template_is_like_the_image() -> None:
    x, y, z = positions()
    template = torch.exp(-(x**2 + y**2 + z**2) / 20)[None, None]
    moved = torch.exp(-((x - 1.5) ** 2 + y**2 + z**2) / 20)[None, None]
    pull = force(moved, template).mean((0, 2, 3, 4))
    assert pull[0] < 0, "the template has at x − 1.5 what the image has at x"
    assert pull[1:].abs().max() < 0.01 * -pull[0]
    assert force(moved, template).norm(dim=1).max() <= 0.5 + 1e-5
    assert not force(template, template).any()


def test_all_is_float32_under_autocast() -> None:
    velocity = smooth(6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = exponential(velocity, GRID)
        assert {u.dtype, warp(velocity, u, GRID).dtype, refine(velocity, GRID).dtype} == {torch.float32}
    torch.testing.assert_close(u, exponential(velocity.float(), GRID))
