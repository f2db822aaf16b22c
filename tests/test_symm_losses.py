"""Tests of all four losses: PML's arguments, reducers and distances; dtypes; labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning import distances, losses, reducers, regularizers
from torch.testing import assert_close

from pml_symm import (
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmLoss,
    SymmNPairsLoss,
    SymmSynthesizer,
    SymmTripletMarginLoss,
    SyntheticBatch,
)

from . import oracle
from .losses import FOUR, LOSSES, WITH_REFERENCE, four


def batch(classes=4, m=2, size=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(classes * m, size, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), torch.arange(classes).repeat(m)


class TestIsAPmlLoss:
    @pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
    def test_extends_the_loss_of_its_name(self, loss):
        symm_loss, base = loss.symm, loss.pml
        assert isinstance(symm_loss(), base)
        assert type(symm_loss().reducer) is type(base().reducer)
        assert type(symm_loss().distance) is type(base().distance)

    def test_arguments_of_the_base_by_position(self):
        assert SymmTripletMarginLoss(0.3, True).margin == 0.3
        assert SymmLiftedStructureLoss(0.7, 0.2).pos_margin == 0.2
        assert SymmAngularLoss(45).alpha.item() == pytest.approx(math.pi / 4)

    @four
    def test_embedding_regularizer(self, symm_loss):
        x, labels = batch()
        regularized = symm_loss(
            embedding_regularizer=regularizers.LpRegularizer(power=2),
            embedding_reg_weight=0.1,
        )
        penalty = 0.1 * (x * x).sum(1).mean()
        assert_close(regularized(x, labels), symm_loss()(x, labels) + penalty)

    @four
    def test_mean_and_do_nothing_reducer_agree(self, symm_loss):
        x, labels = batch()
        terms = symm_loss(reducer=reducers.DoNothingReducer())(x, labels)["loss"]
        mean = symm_loss(reducer=reducers.MeanReducer())(x, labels)
        assert_close(mean, terms["losses"].mean())

    @four
    def test_class_weighted_reducer_weighs_by_the_anchor(self, symm_loss):
        x, labels = batch()
        weights = torch.tensor([1.0, 0.0, 3.0, 0.5], dtype=torch.float64)
        terms = symm_loss(reducer=reducers.DoNothingReducer())(x, labels)["loss"]
        indices = terms["indices"]
        anchors = indices if torch.is_tensor(indices) else indices[0]
        loss = symm_loss(reducer=reducers.ClassWeightedReducer(weights))(x, labels)
        assert_close(loss, (terms["losses"] * weights[labels[anchors]]).mean())

    @pytest.mark.parametrize(
        "symm_loss", [SymmNPairsLoss, SymmLiftedStructureLoss, SymmAngularLoss]
    )
    def test_per_anchor_reducer(self, symm_loss):
        # With two members of each class, every anchor has exactly one pair.
        x, labels = batch()
        loss = symm_loss(reducer=reducers.PerAnchorReducer())(x, labels)
        assert_close(loss, symm_loss(reducer=reducers.MeanReducer())(x, labels))

    @four
    def test_multiple_reducers(self, symm_loss):
        x, labels = batch()
        reducer = reducers.MultipleReducers({"loss": reducers.MeanReducer()})
        loss = symm_loss(reducer=reducer)(x, labels)
        assert_close(loss, symm_loss(reducer=reducers.MeanReducer())(x, labels))

    @four
    def test_multiple_reducers_without_one_for_the_loss(self, symm_loss):
        """Then PML's loss has its default reducer."""
        x, labels = batch()
        penalty = regularizers.LpRegularizer(power=2)
        reducer = reducers.MultipleReducers({"embedding_reg_loss": reducers.MeanReducer()})
        found = symm_loss(reducer=reducer, embedding_regularizer=penalty)
        given = reducers.MultipleReducers(
            {
                "embedding_reg_loss": reducers.MeanReducer(),
                "loss": reducers.MultipleReducers({}).default_reducer,
            }
        )
        expected = symm_loss(reducer=given, embedding_regularizer=penalty)
        assert_close(found(x, labels), expected(x, labels))

    def test_the_default_reducer_with_an_upper_bound(self):
        x, labels = batch()
        terms = SymmTripletMarginLoss(reducer=reducers.DoNothingReducer())(x, labels)
        terms = terms["loss"]["losses"]
        high = terms.median().item()
        kept = terms[(terms > 0) & (terms < high)]
        assert 0 < len(kept) < len(terms)
        reducer = reducers.AvgNonZeroReducer(high=high)
        assert_close(SymmTripletMarginLoss(reducer=reducer)(x, labels), kept.mean())

    def test_indices_of_triplets_are_positive_pair_and_other_class(self):
        x, labels = batch(classes=3, m=3)
        loss = SymmTripletMarginLoss(reducer=reducers.DoNothingReducer())
        a, p, n = loss(x, labels)["loss"]["indices"]
        assert (labels[a] == labels[p]).all() and (a != p).all()
        assert (labels[a] != labels[n]).all()
        assert len(a) == 3 * 3 * 2 * 2

    def test_multiple_losses(self):
        x, labels = batch()
        total = losses.MultipleLosses([SymmNPairsLoss(), SymmTripletMarginLoss()])
        expected = SymmNPairsLoss()(x, labels) + SymmTripletMarginLoss()(x, labels)
        assert_close(total(x, labels), expected)

    def test_n_pairs_refuses_a_reference(self):
        x, labels = batch()
        with pytest.raises(ValueError, match="ref_emb is not supported"):
            SymmNPairsLoss()(x, labels, ref_emb=x.clone(), ref_labels=labels)
        with pytest.raises(ValueError, match="ref_emb is not supported"):
            SymmNPairsLoss()(x, labels, ref_emb=x, ref_labels=labels.roll(1))
        assert SymmNPairsLoss()(x, labels, ref_emb=x, ref_labels=labels) > 0


class TestDistances:
    @pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
    @pytest.mark.parametrize("symm_loss", WITH_REFERENCE)
    def test_float32_of_lengths_that_are_not_one(self, symm_loss, alpha):
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(4).repeat(2)
        x = torch.randn(4, 64, generator=generator)[labels]
        x = x + 0.3 * torch.randn(8, 64, generator=generator)
        distance = distances.LpDistance(normalize_embeddings=False)
        synthesizer = SymmSynthesizer(alpha=alpha)
        loss = symm_loss(distance=distance, synthesizer=synthesizer)
        found = {}
        for dtype in (torch.float32, torch.float64):
            points = x.to(dtype).requires_grad_()
            value = loss(points, labels)
            (gradient,) = torch.autograd.grad(value, points)
            found[dtype] = value.double(), gradient.double()
        assert_close(found[torch.float32], found[torch.float64], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("symm_loss", FOUR[:3])
    def test_a_power_below_one_of_distance_zero(self, symm_loss):
        x, labels = batch()
        x = x.detach()[labels].requires_grad_()  # both points of a class coincide
        symm_loss(distance=distances.LpDistance(power=0.5))(x, labels).backward()
        assert x.grad.isfinite().all()

    @pytest.mark.parametrize(
        "distance",
        [
            distances.LpDistance(p=1),
            distances.LpDistance(power=2),
            distances.SNRDistance(),
            distances.DotProductSimilarity(normalize_embeddings=False),
        ],
        ids=["L1", "squared", "SNR", "dot"],
    )
    @pytest.mark.parametrize("symm_loss", FOUR[:3])
    def test_points_are_compared_as_the_distance_compares_them(self, symm_loss, distance):
        """The value of a batch of two classes, from the distance's own matrix."""
        x, labels = batch(classes=2)
        loss = symm_loss(distance=distance, reducer=reducers.MeanReducer())
        points = SymmSynthesizer()(x, labels)
        matrix = distance(points.embeddings)
        worst = matrix.max() if distance.is_inverted else matrix.min()
        values = []
        for u, v in ((0, 1), (1, 0)):
            block = matrix[points.labels == u][:, points.labels == v]
            worst = block.max() if distance.is_inverted else block.min()
            for i in range(4):
                if labels[i] != u:
                    continue
                j = (i + 2) % 4
                sign = -1 if distance.is_inverted else 1
                values.append((u, sign * (matrix[i, j] - worst), i < j))
        if symm_loss is SymmNPairsLoss:
            terms = [torch.log1p(x.exp()) for _, x, first in values if first]
        elif symm_loss is SymmTripletMarginLoss:
            terms = [torch.relu(x + 0.05) for _, x, _ in values]
        else:
            sign = -1 if distance.is_inverted else 1
            terms = [torch.relu(x + sign * 1) ** 2 / 2 for _, x, _ in values]
        assert_close(loss(x, labels), torch.stack(terms).mean())

    @four
    def test_beta_has_no_effect_under_normalization(self, symm_loss):
        x, labels = batch()
        halved = symm_loss(synthesizer=SymmSynthesizer(beta=0.5))
        assert_close(halved(x, labels), symm_loss()(x, labels))

    def test_angular_takes_euclidean_or_dot_product(self):
        for bad in (
            distances.SNRDistance(),
            distances.LpDistance(p=1),
            distances.LpDistance(power=2),
            distances.DotProductSimilarity(power=2),
        ):
            with pytest.raises(
                ValueError, match=f"distance must be .* {type(bad).__name__}"
            ):
                SymmAngularLoss(distance=bad)

    def test_angular_takes_no_distance_without_a_power(self):
        with pytest.raises(ValueError, match=r"distance must be .* got str\(p=None"):
            SymmAngularLoss(distance="cosine")

    def test_angular_needs_as_many_points_of_each_pair(self):
        class Fewer(SymmSynthesizer):
            def source_and_axis(self, labels, indices_tuple=None):
                source, axis = super().source_and_axis(labels, indices_tuple)
                return source[1:], axis[1:]

        with pytest.raises(ValueError, match="synthesizer must make as many points of"):
            SymmAngularLoss(synthesizer=Fewer())(torch.randn(4, 3), torch.arange(4) // 2)

    def test_angular_normalizes_all_three_points_or_none(self):
        x, labels = batch()
        lengths = torch.rand(8, 1, dtype=torch.float64) + 0.5
        assert_close(SymmAngularLoss()(x * lengths, labels), SymmAngularLoss()(x, labels))
        plain = SymmAngularLoss(distance=distances.LpDistance(normalize_embeddings=False))
        assert (plain(x * lengths, labels) - plain(x, labels)).abs() > 1e-3


class TestTripletArguments:
    def test_swap_changes_nothing(self):
        x, labels = batch(classes=5, m=3)
        assert_close(
            SymmTripletMarginLoss(swap=True)(x, labels), SymmTripletMarginLoss()(x, labels)
        )

    def test_smooth_loss_is_softplus(self):
        x, labels = batch()
        hard, smooth = (
            SymmTripletMarginLoss(
                10, smooth_loss=smooth, reducer=reducers.DoNothingReducer()
            )(x, labels)["loss"]["losses"]
            for smooth in (False, True)
        )
        assert_close(smooth, torch.nn.functional.softplus(hard))

    def test_triplets_per_anchor_draws_from_all_terms(self):
        x, labels = batch(classes=5, m=3)
        everything = SymmTripletMarginLoss(10, reducer=reducers.DoNothingReducer())
        drawn = SymmTripletMarginLoss(
            10, triplets_per_anchor=2, reducer=reducers.DoNothingReducer()
        )
        a, p, n = everything(x, labels)["loss"]["indices"]
        values = everything(x, labels)["loss"]["losses"].tolist()
        names = zip(a.tolist(), p.tolist(), labels[n].tolist(), strict=True)
        known = dict(zip(names, values, strict=True))
        terms = drawn(x, labels)["loss"]
        a, p, n = terms["indices"]
        assert len(a) == 2 * len(labels)
        for i, j, k, value in zip(a, p, n, terms["losses"], strict=True):
            assert known[i.item(), j.item(), labels[k].item()] == pytest.approx(
                value.item()
            )


@pytest.mark.parametrize(
    "symm_loss", [SymmNPairsLoss, SymmTripletMarginLoss, SymmLiftedStructureLoss]
)
def test_a_synthesizer_may_make_points_of_another_class(symm_loss):
    class More(SymmSynthesizer):
        def forward(self, embeddings, labels, indices_tuple=None):
            pool = super().forward(embeddings, labels, indices_tuple)
            first, second = torch.tensor([0]), torch.tensor([1])
            return SyntheticBatch(
                torch.cat([pool.embeddings, embeddings[:1] + embeddings[1:2]]),
                torch.cat([pool.labels, labels[:1] - 1]),
                torch.cat([pool.source, first]),
                torch.cat([pool.axis, second]),
            )

    x, labels = batch()
    found = symm_loss(synthesizer=More(), hardness=lambda x: x.score)(x, labels)
    assert_close(found, symm_loss(synthesizer=More())(x, labels))
    assert (found - symm_loss()(x, labels)).abs() > 1e-6


class NoSynthesis(SymmSynthesizer):
    def source_and_axis(self, labels, indices_tuple=None):
        none = torch.zeros(0, dtype=torch.long)
        return none, none


class TestWithoutSynthesis:
    metric = oracle.Metric("dot", False)
    distance = distances.DotProductSimilarity(normalize_embeddings=False)

    def test_n_pairs_is_the_formula_on_originals(self):
        x, labels = batch(classes=5)
        expected = oracle.n_pairs(x, labels, self.metric, synthesize=False)
        for synthesizer in (NoSynthesis(), SymmSynthesizer(pairing="none")):
            loss = SymmNPairsLoss(synthesizer=synthesizer, distance=self.distance)
            assert_close(loss(x, labels), expected)

    def test_n_pairs_on_anchor_and_positive_alone_is_pml(self):
        x, labels = batch(classes=5)
        anchors, positives = x[:5], x[5:]
        classes = torch.arange(5)
        logits = self.distance(anchors, positives)
        loss = torch.nn.functional.cross_entropy(logits, classes)
        expected = losses.NPairsLoss(distance=self.distance)(x, labels)
        assert_close(loss, expected)  # the last bit of a mean depends on the processor

    @four
    def test_synthesis_makes_the_negatives_harder(self, symm_loss):
        x, labels = batch(classes=6, m=3)
        harder, easier = (
            symm_loss(synthesizer=s, reducer=reducers.MeanReducer())(x, labels)
            for s in (SymmSynthesizer(), SymmSynthesizer(pairing="none"))
        )
        assert harder > easier


class TestGradients:
    @pytest.mark.parametrize("candidates", ["all", "official"])
    @pytest.mark.parametrize("hardness", ["hardest", 3, "semihard"])
    @four
    def test_gradcheck(self, symm_loss, hardness, candidates):
        arguments = {"hardness": hardness}
        if candidates == "official":
            if symm_loss not in (SymmNPairsLoss, SymmAngularLoss) or hardness != "hardest":
                pytest.skip("there is no official version of it")
            arguments["candidates"] = "official"
        if symm_loss is not SymmTripletMarginLoss:
            arguments["reducer"] = reducers.SumReducer()
        loss = symm_loss(**arguments)
        x, labels = batch(classes=3, seed=5)
        assert torch.autograd.gradcheck(lambda y: loss(y, labels), (x,))

    @pytest.mark.parametrize("symm_loss", WITH_REFERENCE)
    def test_gradcheck_with_reference(self, symm_loss):
        x, labels = batch(classes=3)
        ref, ref_labels = batch(classes=4, seed=1)
        assert torch.autograd.gradcheck(
            lambda y, z: symm_loss()(y, labels, ref_emb=z, ref_labels=ref_labels), (x, ref)
        )


class TestIdentity:
    """Nothing hangs on which objects are given."""

    @pytest.mark.parametrize("hardness", ["hardest", 3, "semihard"])
    @four
    def test_a_clone_is_the_same(self, symm_loss, hardness):
        x, labels = batch(classes=3, m=3)
        loss = symm_loss(hardness=hardness)
        expected = loss(x, labels)
        for other in (loss(x.clone(), labels), loss(x, labels.clone())):
            assert torch.equal(other, expected)
            assert torch.equal(
                *(
                    torch.autograd.grad(y, x, retain_graph=True)[0]
                    for y in (other, expected)
                )
            )

    @pytest.mark.parametrize("hardness", ["hardest", 3, "semihard"])
    @pytest.mark.parametrize("symm_loss", WITH_REFERENCE)
    def test_a_clone_of_the_reference_is_the_same(self, symm_loss, hardness):
        x, labels = batch(classes=3, m=3)
        ref, ref_labels = batch(classes=4, m=2, seed=1)
        loss = symm_loss(hardness=hardness)
        expected = loss(x, labels, None, ref, ref_labels)
        assert loss(x, labels, None, ref.clone(), ref_labels.clone()) == expected
        # Labels of the batch for another set of points.
        other = batch(classes=3, m=3, seed=2)[0]
        assert loss(x, labels, None, other, labels) == (
            loss(x, labels, None, other, labels.clone())
        )

    @pytest.mark.parametrize(
        "make", [*WITH_REFERENCE, lambda: SymmLoss(losses.TripletMarginLoss())]
    )
    def test_the_batch_with_other_labels_is_a_reference(self, make):
        x, labels = batch(classes=3, m=3)
        other = labels.roll(1)
        expected = make()(x, labels, None, x.detach().clone(), other)
        assert_close(make()(x, labels, None, x, other), expected)
        assert make()(x, labels, None, x, labels) == make()(x, labels)

    def test_a_clone_of_the_batch_in_symm_loss(self):
        x, labels = batch(classes=3, m=3)
        loss = SymmLoss(losses.MultiSimilarityLoss())
        expected = loss(x, labels)
        assert loss(x.clone(), labels) == loss(x, labels.clone()) == expected


class TestPrecision:
    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [(torch.float32, 1e-5), (torch.float16, 2e-5), (torch.bfloat16, 2e-5)],
    )
    @four
    def test_against_float64_on_the_same_rounded_inputs(self, symm_loss, dtype, tolerance):
        x, labels = batch(classes=8, size=16, dtype=dtype)
        expected = symm_loss()(x.detach().double(), labels).item()
        value = symm_loss()(x, labels)
        value.backward()
        assert value.item() == pytest.approx(expected, rel=tolerance)
        assert x.grad.dtype == dtype and torch.isfinite(x.grad).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @four
    def test_autocast_changes_nothing(self, symm_loss, dtype):
        x, labels = batch(classes=8, size=16, dtype=torch.float32)
        expected = symm_loss()(x, labels)
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(symm_loss()(x, labels), expected)


class TestLabels:
    @pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32])
    @four
    def test_dtype_does_not_matter(self, symm_loss, dtype):
        x, labels = batch()
        expected = symm_loss()(x, labels)
        assert torch.equal(symm_loss()(x, labels.to(dtype)), expected)

    @four
    def test_values_do_not_matter(self, symm_loss):
        x, labels = batch()
        names = torch.tensor([-7, 2**62, 0, -(2**62)])
        assert_close(symm_loss()(x, names[labels]), symm_loss()(x, labels))

    @given(st.permutations(range(8)))
    def test_order_does_not_matter(self, order):
        x, labels = batch()
        for symm_loss in FOUR:
            assert_close(symm_loss()(x[order], labels[order]), symm_loss()(x, labels))

    @given(
        st.lists(st.integers(0, 4), min_size=1, max_size=14),
        st.integers(1, 6),
        st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
        st.sampled_from(["hardest", 2, "semihard"]),
        st.sampled_from(["all", "ring"]),
    )
    def test_any_pattern_gives_a_finite_loss(self, labels, size, dtype, hardness, pairing):
        synthesizer = SymmSynthesizer(pairing=pairing)
        for symm_loss in FOUR:
            x = torch.randn(len(labels), size).to(dtype).requires_grad_()
            loss = symm_loss(hardness=hardness, synthesizer=synthesizer)
            value = loss(x, torch.tensor(labels))
            value.backward()
            assert torch.isfinite(value) and value >= 0
            assert torch.isfinite(x.grad).all()


class TestSyntheticRatio:
    def test_off_by_default(self):
        loss = SymmNPairsLoss()
        loss(*batch())
        assert not hasattr(loss, "synthetic_ratio")

    def test_no_synthesis_in_large_classes(self):
        # 256 originals and no synthetic points: more than uint8 can count.
        loss = SymmTripletMarginLoss(
            synthesizer=SymmSynthesizer(pairing="none"), collect_stats=True
        )
        loss(*batch(classes=2, m=256))
        assert loss.synthetic_ratio == 0.0

    @pytest.mark.parametrize(
        "make",
        [
            *FOUR,
            lambda **x: SymmNPairsLoss(candidates="official", **x),
            lambda **x: SymmAngularLoss(candidates="official", **x),
            lambda **x: SymmLoss(losses.ContrastiveLoss(), **x),
        ],
    )
    def test_all_or_none(self, make):
        # A mirror image of each class lies between the classes, nearer to the other class
        # than the originals.
        angles = torch.tensor([0.0, 0.5, 2.0, 1.5])
        facing = torch.stack([angles.cos(), angles.sin()], dim=1)
        labels = torch.tensor([0, 0, 1, 1])
        loss = make(collect_stats=True)
        loss(facing, labels)
        assert loss.synthetic_ratio == 1.0
        # Members that coincide are their own mirror images: ties go to the originals.
        loss(torch.eye(2)[labels], labels)
        assert loss.synthetic_ratio == 0.0

    def test_reset_when_there_is_nothing(self):
        loss = SymmTripletMarginLoss(collect_stats=True)
        loss(*batch())
        assert loss.synthetic_ratio > 0
        loss(torch.randn(3, 2), torch.tensor([0, 1, 2]))
        assert loss.synthetic_ratio == 0


@pytest.mark.parametrize("candidates", ["all", "official"])
def test_n_pairs_takes_the_pairs_of_a_tuple(candidates):
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(9, 5, generator=generator), torch.arange(3).repeat(3)
    loss = SymmNPairsLoss(candidates=candidates)
    pairs = torch.tensor([3, 1]), torch.tensor([6, 4])
    expected = loss(x[[3, 6, 1, 4]], torch.tensor([0, 0, 1, 1]))
    assert_close(loss(x, labels, (*pairs, torch.tensor([1, 0]))), expected)


def test_drawn_triplets_of_a_reference_are_among_all_of_them():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(6, 5, generator=generator), torch.arange(3).repeat(2)
    ref, ref_labels = torch.randn(12, 5, generator=generator), torch.arange(4).repeat(3)

    def terms(**options):
        reducer = reducers.DoNothingReducer()
        loss = SymmTripletMarginLoss(10, reducer=reducer, **options)
        found = loss(x, labels, None, ref, ref_labels)["loss"]
        a, p, n = found["indices"]
        keys = zip(a.tolist(), p.tolist(), ref_labels[n].tolist(), strict=True)
        return dict(zip(keys, found["losses"].tolist(), strict=True)), len(a)

    (every, _), (drawn, number) = terms(), terms(triplets_per_anchor=2)
    assert number == 2 * len(x)
    for key, value in drawn.items():
        assert every[key] == pytest.approx(value)


@pytest.mark.parametrize("scale", [1e-30, 1e18, 1e25])
@pytest.mark.parametrize("hardness", ["hardest", "semihard"])
def test_euclidean_distances_in_any_unit(scale, hardness):
    """Squares of such numbers are zero or infinite in float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=generator).requires_grad_()
    scaled, labels = (x.detach() * scale).requires_grad_(), torch.arange(4).repeat(2)
    distance = distances.LpDistance(normalize_embeddings=False)
    loss = SymmTripletMarginLoss(0, distance=distance, hardness=hardness)
    expected, found = loss(x, labels), loss(scaled, labels)
    assert_close(found / scale, expected)
    (expected,), (found,) = (
        torch.autograd.grad(value, of) for value, of in ((expected, x), (found, scaled))
    )
    assert_close(found, expected)
