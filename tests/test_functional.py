"""The geometry of the mirror image, and the selection of the hardest pair."""

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
        with pytest.raises(TypeError, match=r"axis must be floating, got torch\.int64"):
            F.reflect(torch.randn(2, 3), torch.ones(2, 3, dtype=torch.int64))


class TestClassPairHardness:
    similarity = torch.tensor([[4.0, 1.0, 7.0], [9.0, 5.0, 2.0]])

    def select(self, hardness, **kwargs):
        return F.class_pair_hardness(
            self.similarity,
            torch.tensor([0, 0]),
            torch.tensor([1, 0, 1]),
            (1, 3),
            hardness,
            **kwargs,
        )

    @pytest.mark.parametrize(
        ("hardness", "values"),
        [("hardest", [5.0, 9.0]), (1, [5.0, 9.0]), (2, [1.0, 7.0]), (4, [1.0, 2.0])],
    )
    def test_kth_hardest_or_the_easiest(self, hardness, values):
        selected = self.select(hardness)
        assert selected.similarity[0, :2].tolist() == values
        assert selected.found.tolist() == [[True, True, False]]

    def test_semihard_is_the_hardest_below_the_positive(self):
        selected = self.select(
            "semihard",
            positive_classes=torch.tensor([0, 0]),
            positive_similarity=torch.tensor([5.0, 1.0]),
        )
        assert selected.found.tolist() == [[True, True, False], [False, False, False]]
        assert selected.similarity[0, :2].tolist() == [1.0, 4.0]

    def test_winner_is_where_the_similarity_is(self):
        selected = self.select("hardest")
        row, column = selected.row[0, :2], selected.column[0, :2]
        assert torch.equal(self.similarity[row, column], selected.similarity[0, :2])

    def test_gradient_reaches_the_selected_entries_only(self):
        similarity = self.similarity.clone().requires_grad_()
        classes = torch.tensor([0, 1]), torch.tensor([0, 0, 0])
        F.class_pair_hardness(similarity, *classes, (2, 1)).similarity.sum().backward()
        assert similarity.grad.tolist() == [[0, 0, 1], [1, 0, 0]]

    @pytest.mark.parametrize("hardness", ["hardest", 2])
    def test_no_points(self, hardness):
        none = torch.zeros(0, dtype=torch.long)
        selected = F.class_pair_hardness(torch.zeros(0, 0), none, none, (2, 3), hardness)
        assert selected.similarity.shape == (2, 3) and not selected.found.any()

    def test_bad_input(self):
        zeros = torch.zeros(2, dtype=torch.long)
        with pytest.raises(ValueError, match=r"shape \(2, 2\).*got \(3, 2\)"):
            F.class_pair_hardness(torch.zeros(3, 2), zeros, zeros, (1, 1))
        with pytest.raises(ValueError, match="needs positive_classes"):
            F.class_pair_hardness(torch.zeros(2, 2), zeros, zeros, (1, 1), "semihard")
        with pytest.raises(ValueError, match=r"hardness must be .* got 'hard'"):
            F.class_pair_hardness(torch.zeros(2, 2), zeros, zeros, (1, 1), "hard")
