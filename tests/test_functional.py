"""pml_symm.functional on plain tensors gives what the PML classes give.

test_oracle.py has the values of both against plain loops.
"""

import pytest
import torch
from pytorch_metric_learning import distances, reducers
from torch.testing import assert_close

from pml_symm import SymmAngularLoss, SymmMiner, SymmSynthesizer, SymmTripletMarginLoss
from pml_symm import functional as F

from .losses import (
    DISTANCES,
    FUNCTIONS,
    LOSSES,
    RULES,
    functions,
    signal_to_noise,
)

LABELS = torch.tensor([3, 1, 3, 2, 1, 3, 2, 7, 1])
HARDNESS = ["hardest", 2, "semihard", RULES["capped"][0]]
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def batch(size=5, dtype=torch.float64):
    return torch.randn(len(LABELS), size, dtype=dtype, requires_grad=True), LABELS


def reference_of(size=5):
    x = torch.randn(7, size, dtype=torch.float64, requires_grad=True)
    return x, torch.tensor([1, 3, 1, 3, 4, 4, 2])


def sorted_terms(terms):
    """Terms by their indices, as plain numbers."""
    return sorted(zip(*(x.tolist() for x in (*terms[1], terms[0])), strict=True))


@losses
class TestLosses:
    @pytest.mark.parametrize("hardness", HARDNESS)
    def test_the_class_has_the_same_value(self, loss, hardness):
        x, labels = batch()
        found = loss.function(x, labels, hardness=hardness)
        expected = loss.symm(hardness=hardness)(x, labels)
        assert_close(found, expected)
        assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))

    @pytest.mark.parametrize("hardness", HARDNESS)
    def test_the_class_has_the_same_terms(self, loss, hardness):
        x, labels = batch()
        found = loss.function(x, labels, hardness=hardness, reduction="none")
        assert isinstance(found, F.Terms)
        assert all(len(index) == len(found.losses) for index in found.indices)
        expected = loss.symm(hardness=hardness, reducer=reducers.DoNothingReducer())
        expected = expected(x, labels)["loss"]
        indices = expected["indices"]
        indices = (indices,) if torch.is_tensor(indices) else indices
        found = sorted_terms(found)
        expected = sorted_terms((expected["losses"], indices))
        assert [x[:-1] for x in found] == [x[:-1] for x in expected]
        assert [x[-1] for x in found] == pytest.approx([x[-1] for x in expected])

    def test_the_mean_is_that_of_the_terms(self, loss):
        x, labels = batch()
        terms = loss.function(x, labels, reduction="none").losses
        if loss.function is F.triplet_margin_loss:
            terms = terms[terms > 0]
        assert_close(loss.function(x, labels), terms.mean())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_single(self, loss, dtype):
        x, labels = batch(dtype=dtype)
        found = loss.function(x, labels)
        expected = loss.function(x.float(), labels)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
        (gradient,) = torch.autograd.grad(found, x)
        assert gradient.dtype == dtype
        assert_close(gradient, torch.autograd.grad(expected, x)[0])

    def test_autocast_changes_nothing(self, loss):
        x, labels = batch(dtype=torch.float32)
        expected = loss.function(x, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss.function(x, labels), expected)

    @pytest.mark.parametrize("labels", [[], [3], [1, 1], [5, 5, 5], [1, 2, 3]], ids=str)
    def test_nothing_to_compare(self, loss, labels):
        labels = torch.tensor(labels, dtype=torch.long)
        x = torch.randn(len(labels), 4, requires_grad=True)
        value = loss.function(x, labels)
        value.backward()
        assert value == 0 and not x.grad.any()
        terms = loss.function(x, labels, reduction="none")
        assert not terms.losses.any()
        assert all(len(index) == len(terms.losses) for index in terms.indices)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_never_finite_for_what_is_not(self, loss, value):
        x, labels = batch()
        broken = x.detach().clone()
        broken[7, 0] = value  # of a class without a pair
        assert not loss.function(broken, labels).isfinite()

    def test_a_promise_changes_no_value(self, loss):
        labels = torch.tensor([4, 1, 4, 9, 9, 1])
        x = torch.randn(6, 3, dtype=torch.float64)
        found = loss.function(x, labels, samples_per_class=2)
        assert_close(found, loss.function(x, labels))
        with pytest.raises(ValueError, match="samples_per_class=3 times, got counts"):
            loss.function(x, labels, samples_per_class=3)


@pytest.mark.parametrize("name", ["triplet", "lifted", "angular"])
class TestReferenceAndPairs:
    @pytest.mark.parametrize("hardness", HARDNESS)
    def test_reference(self, name, hardness):
        loss, (x, labels), (ref, ref_labels) = LOSSES[name], batch(), reference_of()
        arguments = {"reference": ref, "reference_labels": ref_labels}
        found = loss.function(x, labels, hardness=hardness, **arguments)
        expected = loss.symm(hardness=hardness)(x, labels, None, ref, ref_labels)
        assert_close(found, expected)
        assert_close(
            torch.autograd.grad(found, (x, ref)), torch.autograd.grad(expected, (x, ref))
        )

    def test_pairs(self, name):
        loss, (x, labels) = LOSSES[name], batch()
        pairs = torch.tensor([0, 1, 5]), torch.tensor([2, 8, 0])
        expected = loss.symm()(x, labels, (*pairs, torch.tensor([1, 0, 1])))
        assert_close(loss.function(x, labels, pairs=pairs), expected)
        terms = loss.function(x, labels, pairs=pairs, reduction="none")
        found = set(zip(*(x.tolist() for x in terms.indices[:2]), strict=True))
        assert found == {(0, 2), (1, 8), (5, 0)}

    def test_pairs_of_a_reference(self, name):
        loss, (x, labels), (ref, ref_labels) = LOSSES[name], batch(), reference_of()
        pairs = torch.tensor([0, 1]), torch.tensor([3, 0])
        found = loss.function(
            x, labels, reference=ref, reference_labels=ref_labels, pairs=pairs
        )
        expected = loss.symm()(x, labels, (*pairs, pairs[0]), ref, ref_labels)
        assert_close(found, expected)

    def test_no_pair(self, name):
        x, labels = batch()
        none = torch.zeros(0, dtype=torch.long)
        assert LOSSES[name].function(x, labels, pairs=(none, none)) == 0


@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("space", ["batch", "pool"])
class TestMine:
    @pytest.mark.parametrize("name", DISTANCES)
    def test_the_miner_has_the_same(self, name, space, hardness):
        x, labels = batch()
        distance = DISTANCES[name]
        found = F.mine(
            x,
            labels,
            distance=distance.functional,
            hardness=hardness,
            index_space=space,
            synthesis=F.Synthesis(pairing="ring"),
        )
        miner = SymmMiner(
            hardness, SymmSynthesizer(pairing="ring"), space, distance=distance.pml()
        )
        for index, expected in zip(found, miner(x, labels), strict=True):
            assert torch.equal(index, expected)

    def test_reference(self, space, hardness):
        (x, labels), (ref, ref_labels) = batch(), reference_of()
        found = F.mine(
            x,
            labels,
            reference=ref,
            reference_labels=ref_labels,
            hardness=hardness,
            index_space=space,
        )
        miner = SymmMiner(hardness, index_space=space)
        for index, expected in zip(found, miner(x, labels, ref, ref_labels), strict=True):
            assert torch.equal(index, expected)

    def test_pairs(self, space, hardness):
        x, labels = batch()
        pairs = torch.tensor([0, 1, 5]), torch.tensor([2, 8, 0])
        chosen = F.mine(x, labels, pairs=pairs, hardness=hardness, index_space=space)
        every = F.mine(x, labels, hardness=hardness, index_space=space)
        wanted = set(zip(*(x.tolist() for x in pairs), strict=True))
        if len(chosen) == 4:
            assert set(zip(*(x.tolist() for x in chosen[:2]), strict=True)) == wanted
            assert torch.equal(chosen[3], every[3])
            return
        found, triplets = (
            set(zip(*(x.tolist() for x in indices), strict=True))
            for indices in (chosen, every)
        )
        assert found == {triplet for triplet in triplets if triplet[:2] in wanted}


def test_synthesize_is_the_synthesizer():
    x, labels = batch()
    found = F.synthesize(x, labels, F.Synthesis(1.5, 0.7, "ring"))
    for one, other in zip(found, SymmSynthesizer(1.5, 0.7, "ring")(x, labels), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("power", [0.5, 2, 3])
def test_powers_of_the_distance(power):
    x, labels = batch()
    for normalize in (True, False):
        found = F.triplet_margin_loss(
            x, labels, distance=F.Euclidean(normalize, power=power)
        )
        distance = distances.LpDistance(power=power, normalize_embeddings=normalize)
        assert_close(found, SymmTripletMarginLoss(distance=distance)(x, labels))


@functions
def test_labels_of_any_dtype(function):
    x, labels = batch()
    assert function(x, labels.to(torch.uint8)) == function(x, labels)


@pytest.mark.parametrize("function", [*FUNCTIONS[1:], F.mine])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_pairs_of_any_dtype(function, dtype):
    x, labels = batch()
    pairs = torch.tensor([0, 2, 1]), torch.tensor([2, 5, 4])
    found = function(x, labels, pairs=tuple(index.to(dtype) for index in pairs))
    assert_close(found, function(x, labels, pairs=pairs))


@pytest.mark.parametrize("function", [*FUNCTIONS[1:], F.mine])
def test_a_reference_in_another_precision(function):
    (x, labels), (y, of_y) = batch(dtype=torch.float32), reference_of()
    found = function(x, labels, reference=y, reference_labels=of_y)
    expected = function(x.double(), labels, reference=y, reference_labels=of_y)
    assert_close(found, expected)


@functions
def test_terms_have_a_graph_where_there_are_none(function):
    x, labels = batch()
    function(x[:1], labels[:1], reduction="none").losses.sum().backward()
    assert not x.grad.any()


class TestBadInput:
    @pytest.mark.parametrize("function", [*FUNCTIONS, F.mine, F.synthesize])
    def test_tensors(self, function):
        x, labels = batch()
        with pytest.raises(TypeError, match=r"embeddings must be floating, got .*int64"):
            function(x.long(), labels)
        with pytest.raises(TypeError, match="embeddings must be a tensor, got list"):
            function([[0.0]], labels)
        with pytest.raises(ValueError, match=r"embeddings must be .* got shape \(9,\)"):
            function(x[:, 0], labels)
        with pytest.raises(ValueError, match=r"labels must .*\(9,\).* got shape \(4,\)"):
            function(x, labels[:4])
        with pytest.raises(TypeError, match="labels must be a tensor, got list"):
            function(x, [0] * 9)
        with pytest.raises((TypeError, ValueError), match=r"labels must be .* got None"):
            function(x, None)

    @pytest.mark.parametrize("function", [*FUNCTIONS, F.mine])
    @pytest.mark.parametrize("hardness", ["hard", 0, 1.5, True, None])
    def test_hardness(self, function, hardness):
        with pytest.raises(ValueError, match=rf"hardness must be .* got {hardness!r}"):
            function(*batch(), hardness=hardness)

    @functions
    def test_reduction(self, function):
        with pytest.raises(ValueError, match=r"reduction must be .* got 'sum'"):
            function(*batch(), reduction="sum")

    @pytest.mark.parametrize("alpha", [0, float("nan"), "40"])
    def test_angle(self, alpha):
        with pytest.raises(ValueError, match=f"alpha must be .* got {alpha!r}"):
            F.angular_loss(*batch(), alpha=alpha)
        with pytest.raises(ValueError, match=f"alpha must be .* got {alpha!r}"):
            SymmAngularLoss(alpha=alpha)

    @functions
    def test_samples_per_class(self, function):
        with pytest.raises(ValueError, match=r"samples_per_class must be .* got 0"):
            function(*batch(), samples_per_class=0)

    @pytest.mark.parametrize("function", [*FUNCTIONS[1:], F.mine])
    def test_reference(self, function):
        x, labels = batch()
        with pytest.raises(ValueError, match="go together, got only"):
            function(x, labels, reference=x)
        with pytest.raises(ValueError, match=r"\(2, 3\) and \(9, 5\)"):
            function(x, labels, reference=torch.ones(2, 3), reference_labels=torch.ones(2))

    @pytest.mark.parametrize("function", [*FUNCTIONS[1:], F.mine])
    def test_pairs(self, function):
        x, labels = batch()
        first = torch.tensor([0])
        with pytest.raises(ValueError, match=r"different classes.* rows 0 and 1"):
            function(x, labels, pairs=(first, torch.tensor([1])))
        with pytest.raises(ValueError, match="row 9, but there are 9 rows"):
            function(x, labels, pairs=(first, torch.tensor([9])))
        with pytest.raises(TypeError, match=r"must hold integers, got torch\.float32"):
            function(x, labels, pairs=(first, torch.tensor([2.0])))
        with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
            function(x, labels, pairs=(first, torch.tensor([2, 5])))

    @pytest.mark.parametrize("function", [*FUNCTIONS[:3], F.mine])
    def test_a_distance_of_another_shape(self, function):
        for wrong in (lambda x, y: x @ x[:2].t(), lambda x, y: x.sum(1), lambda x, y: 0):
            with pytest.raises(
                ValueError, match=r"distance must .* shape \(\d+, \d+\), got"
            ):
                function(*batch(), distance=F.ByFunction(wrong))

    def test_options(self):
        with pytest.raises(ValueError, match=r"index_space must be .* got 'ref'"):
            F.mine(*batch(), index_space="ref")
        for power in (0, float("inf"), "2"):
            with pytest.raises(ValueError, match=f"power must be .* got {power!r}"):
                F.Euclidean(power=power)
        for synthesis, kind in ((False, "bool"), ("ring", "str")):
            for function in (*FUNCTIONS, F.mine, F.synthesize):
                with pytest.raises(TypeError, match=f"synthesis must be .* got {kind}"):
                    function(*batch(), synthesis=synthesis)
        with pytest.raises(ValueError, match=r"alpha must be .* got -1"):
            F.Synthesis(alpha=-1)
        with pytest.raises(ValueError, match=r"beta must be .* got 0"):
            F.Synthesis(beta=0)
        with pytest.raises(ValueError, match=r"pairing must be .* got 'pairs'"):
            F.Synthesis(pairing="pairs")


def test_an_asymmetric_distance_is_asked_in_both_orders():
    """Terms of (i, j) and (j, i) differ, and so do H(u, v) and H(v, u)."""
    x, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    terms = F.triplet_margin_loss(
        x,
        labels,
        10,
        distance=F.ByFunction(signal_to_noise),
        synthesis=F.Synthesis(pairing="none"),
        reduction="none",
    )
    matrix = signal_to_noise(x, x)
    for anchor, positive, _, value in zip(
        *(x.tolist() for x in terms.indices), terms.losses.tolist(), strict=True
    ):
        own, other = labels == labels[anchor], labels != labels[anchor]
        hardest = matrix[own][:, other].min()
        assert value == pytest.approx(float(matrix[anchor, positive] - hardest + 10))
    assert len(terms.losses) == 4


class Manhattan(F.Distance):
    larger_is_nearer, normalize = False, False

    def matrix(self, x, y):
        return torch.cdist(x, y, p=1)

    def rows(self, x, y):
        return torch.linalg.vector_norm(x - y, ord=1, dim=-1)


class Halfway(F.Synthesis):
    """Mirror images, halfway back to their sources."""

    def pool(self, embeddings, labels):
        pool = super().pool(embeddings, labels)
        halfway = (pool.synthetic + embeddings[pool.source]) / 2
        return pool._replace(embeddings=torch.cat([embeddings, halfway]))


def test_a_distance_of_ones_own():
    x, labels = torch.randn(8, 5, dtype=torch.float64), torch.arange(4).repeat(2)
    expected = F.ByFunction(lambda x, y: torch.cdist(x, y, p=1))
    torch.testing.assert_close(
        F.triplet_margin_loss(x, labels, distance=Manhattan()),
        F.triplet_margin_loss(x, labels, distance=expected),
    )


def test_points_of_ones_own():
    """A subclass of Synthesis may make any points, whatever the distance."""
    x, labels = torch.randn(8, 5, dtype=torch.float64), torch.arange(4).repeat(2)
    raw = F.DotProduct(normalize=False)
    found, pairs, _ = F.n_pairs_loss(
        x, labels, distance=raw, synthesis=Halfway(), reduction="none"
    )
    assert pairs[0].tolist() == [0, 1, 2, 3]
    pool = Halfway().pool(x, labels)
    scores = pool.embeddings @ pool.embeddings.t()
    for u in range(4):
        logits = [
            scores[pool.labels == u][:, pool.labels == v].max()
            if u != v
            else x[u] @ x[u + 4]
            for v in range(4)
        ]
        expected = torch.stack(logits).logsumexp(0) - logits[u]
        torch.testing.assert_close(found[u], expected)


def test_n_pairs_takes_no_pairs_and_no_reference():
    x, labels = batch()
    pairs = torch.tensor([0]), torch.tensor([2])
    for options in ({"pairs": pairs}, {"reference": x.clone(), "reference_labels": labels}):
        name = next(iter(options))
        with pytest.raises(ValueError, match=f"{name} is not supported by the N-pairs"):
            F.n_pairs_loss(x, labels, **options)


@pytest.mark.parametrize("distance", [F.Euclidean(), F.ByFunction(torch.cdist)])
def test_angular_takes_dot_products_alone(distance):
    with pytest.raises(ValueError, match="distance must be a DotProduct, got"):
        F.angular_loss(*batch(), distance=distance)
