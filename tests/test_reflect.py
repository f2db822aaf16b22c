"""The geometry of the mirror image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pml_symm import functional as F

SIZES = st.tuples(st.integers(1, 6), st.integers(2, 9))
SEEDS = st.integers(0, 2**31)


def two_points(size, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return points * scale


class TestReflect:
    def test_closed_form_in_the_plane(self):
        angle = torch.tensor([0.3, 1.1, 2.9], dtype=torch.float64)
        source = 1.7 * torch.stack([angle.cos(), angle.sin()], dim=1)
        axis_angle = torch.tensor(0.8, dtype=torch.float64)
        axis = 0.4 * torch.stack([axis_angle.cos(), axis_angle.sin()])
        mirrored = 2 * axis_angle - angle
        expected = 1.7 * torch.stack([mirrored.cos(), mirrored.sin()], dim=1)
        assert_close(
            F.reflect(source, axis),
            expected,
        )

    @given(SIZES, SEEDS, st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]))
    def test_norm_similarity_and_distance_are_those_of_the_source(self, size, seed, scale):
        source, axis = two_points(size, seed, scale)
        synthetic = F.reflect(source, axis)
        tolerance = {"rtol": 1e-9, "atol": 1e-12 * scale}
        assert_close(synthetic.norm(dim=1), source.norm(dim=1), **tolerance)
        assert_close(
            (synthetic - axis).norm(dim=1), (source - axis).norm(dim=1), **tolerance
        )
        assert_close(
            (synthetic * axis).sum(1),
            (source * axis).sum(1),
            rtol=1e-9,
            atol=1e-12 * scale**2,
        )

    @given(SIZES, SEEDS)
    def test_twice_is_the_identity(self, size, seed):
        source, axis = two_points(size, seed)
        assert_close(F.reflect(F.reflect(source, axis), axis), source)

    @given(SIZES, SEEDS)
    def test_angle_to_the_source_is_twice_the_angle_to_the_axis(self, size, seed):
        source, axis = two_points(size, seed)
        cosine = torch.nn.functional.cosine_similarity
        half = cosine(source, axis)
        assert_close(cosine(source, F.reflect(source, axis)), 2 * half**2 - 1)

    @given(SIZES, SEEDS, st.floats(0.1, 3), st.floats(0.1, 3))
    def test_alpha_and_beta_scale_similarity_and_norm(self, size, seed, alpha, beta):
        source, axis = two_points(size, seed)
        synthetic = F.reflect(source, axis, alpha, beta)
        assert_close((synthetic * axis).sum(1), beta * (alpha - 1) * (source * axis).sum(1))
        assert_close(synthetic, beta * F.reflect(source, axis, alpha))

    def test_zero_axis_has_zero_projection_and_finite_gradients(self):
        source = torch.tensor([[1.0, -2.0]], requires_grad=True)
        axis = torch.zeros(1, 2, requires_grad=True)
        synthetic = F.reflect(source, axis)
        assert_close(synthetic, -source)
        synthetic.sum().backward()
        assert torch.isfinite(axis.grad).all() and torch.isfinite(source.grad).all()

    @pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-18, 1e30])
    def test_any_length_of_axis_in_float32(self, scale):
        source = torch.tensor([[1.0, 2.0]], requires_grad=True)
        axis = torch.tensor([[scale, scale]]).requires_grad_()
        synthetic = F.reflect(source, axis)
        synthetic.sum().backward()
        assert torch.isfinite(synthetic).all()
        assert torch.isfinite(axis.grad).all() and torch.isfinite(source.grad).all()
        if scale > 1e-19:
            assert_close(synthetic, torch.tensor([[2.0, 1.0]]))

    def test_gradcheck(self):
        source, axis = two_points((3, 4), 1).requires_grad_().unbind()
        assert torch.autograd.gradcheck(F.reflect, (source, axis))
        assert torch.autograd.gradgradcheck(F.reflect, (source, axis))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_rounded_once(self, dtype):
        source, axis = two_points((5, 16), 2).to(dtype).unbind()
        expected = F.reflect(source.float(), axis.float()).to(dtype)
        assert torch.equal(F.reflect(source, axis), expected)

    @pytest.mark.parametrize("name", ["alpha", "beta"])
    @pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "2", True])
    def test_bad_ratio(self, name, value):
        x = torch.randn(2, 3)
        with pytest.raises(ValueError, match=f"{name} must be .* got {value!r}"):
            F.reflect(x, x, **{name: value})

    def test_bad_points(self):
        with pytest.raises(ValueError, match=r"embedding size.*\(2, 3\).*\(2, 4\)"):
            F.reflect(torch.randn(2, 3), torch.randn(2, 4))
        with pytest.raises(TypeError, match="source must be a Tensor, got list"):
            F.reflect([1.0, 2.0], torch.ones(2))
        with pytest.raises(TypeError, match=r"axis must be floating, got torch\.int64"):
            F.reflect(torch.randn(2, 3), torch.ones(2, 3, dtype=torch.int64))


def test_the_result_has_the_wider_precision_of_both():
    mixed = F.reflect(torch.ones(1, 2, dtype=torch.float16), torch.ones(1, 2))
    assert mixed.dtype == torch.float32
