"""Bad and degenerate batches, for the losses, the wrapper and the miner."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses

import pml_symm
from pml_symm import SymmLoss, SymmMiner, SymmSynthesizer
from pml_symm.functional import Euclidean

from . import losses as losses_of
from .losses import FOUR

LOSSES = {
    **{name: (loss.symm, loss.pml) for name, loss in losses_of.LOSSES.items()},
    "n-pairs, official": (
        lambda: pml_symm.SymmNPairsLoss(candidates="official"),
        losses.NPairsLoss,
    ),
    "angular, official": (
        lambda: pml_symm.SymmAngularLoss(candidates="official"),
        losses.AngularLoss,
    ),
    "wrapper": (
        lambda: SymmLoss(losses.MultiSimilarityLoss()),
        losses.MultiSimilarityLoss,
    ),
}


@pytest.fixture(params=LOSSES)
def pair(request):
    symm, base = LOSSES[request.param]
    return symm(), base()


@pytest.fixture
def loss(pair):
    return pair[0]


def refuses_reference(loss):
    one_pair_a_class = getattr(loss, "candidates", "all") == "official"
    return one_pair_a_class or isinstance(loss, losses.NPairsLoss)


@pytest.fixture(params=[*LOSSES, "miner", "synthesizer"])
def anything(request):
    if request.param == "miner":
        return SymmMiner()
    if request.param == "synthesizer":
        return SymmSynthesizer()
    return LOSSES[request.param][0]()


class TestShapes:
    labels = torch.tensor([0, 0, 1, 1])

    def test_rank(self, anything):
        with pytest.raises(ValueError, match=r"embeddings must be .* got shape \(4,\)"):
            anything(torch.randn(4), self.labels)
        with pytest.raises(ValueError, match=r"embeddings must be .* \(4, 2, 3\)"):
            anything(torch.randn(4, 2, 3), self.labels)
        with pytest.raises(ValueError, match=r"embeddings must have .* \(4, 0\)"):
            anything(torch.randn(4, 0), self.labels)

    def test_length(self, anything):
        with pytest.raises(ValueError, match=r"labels must .*\(5,\).*got shape \(4,\)"):
            anything(torch.randn(5, 3), self.labels)
        with pytest.raises(ValueError, match=r"labels must .* got shape \(4, 1\)"):
            anything(torch.randn(4, 3), self.labels.unsqueeze(1))

    def test_types(self, anything):
        with pytest.raises(TypeError, match=r"embeddings must be floating, got .*int64"):
            anything(torch.ones(4, 3, dtype=torch.int64), self.labels)
        with pytest.raises(TypeError, match="embeddings must be a tensor, got list"):
            anything([[0.0]], self.labels)
        with pytest.raises(TypeError, match="labels must be a tensor, got list"):
            anything(torch.randn(4, 3), [0, 0, 1, 1])

    def test_no_labels(self, loss):
        pairs = tuple(torch.tensor([x]) for x in (0, 1, 3))
        for indices_tuple in (None, pairs):
            with pytest.raises(ValueError, match="labels are required"):
                loss(torch.randn(4, 3), None, indices_tuple)

    def test_distance(self):
        wrong = Euclidean()
        for make in (
            pml_symm.SymmNPairsLoss,
            pml_symm.SymmTripletMarginLoss,
            pml_symm.SymmLiftedStructureLoss,
            SymmMiner,
        ):
            with pytest.raises(TypeError, match=r"distance must be a BaseDistance, got E"):
                make(distance=wrong)(torch.randn(4, 3), self.labels)

    def test_no_labels_to_mine(self):
        with pytest.raises(ValueError, match="labels must be given, got None"):
            SymmMiner()(torch.randn(4, 3), None)

    def test_reference(self, loss):
        for call in (loss, SymmMiner()):
            with pytest.raises(ValueError, match="go together, got only ref_emb"):
                call(torch.randn(4, 3), self.labels, ref_emb=torch.randn(4, 3))
            with pytest.raises(ValueError, match=r"ref_emb.*\(2, 5\).*\(4, 3\)"):
                call(
                    torch.randn(4, 3),
                    self.labels,
                    ref_emb=torch.randn(2, 5),
                    ref_labels=torch.tensor([0, 1]),
                )
            with pytest.raises(ValueError, match=r"ref_labels must .* ref_emb"):
                call(
                    torch.randn(4, 3),
                    self.labels,
                    ref_emb=torch.randn(2, 3),
                    ref_labels=self.labels,
                )

    def test_indices_tuple(self, loss):
        pairs = tuple(torch.tensor([x]) for x in (0, 2, 3))
        with pytest.raises(ValueError, match=r"different classes .* rows 0 and 2"):
            loss(torch.randn(4, 3), self.labels, pairs)
        masks = tuple(x.to(torch.uint8) for x in pairs)
        with pytest.raises(ValueError, match=r"different classes .* rows 0 and 2"):
            loss(torch.randn(4, 3), self.labels, masks)


class TestHardness:
    @pytest.mark.parametrize("make", [*FOUR, SymmMiner])
    @pytest.mark.parametrize("hardness", ["hard", 0, -2, 1.5, True, None])
    def test_unknown(self, make, hardness):
        with pytest.raises(ValueError, match=rf"hardness must be .* got {hardness!r}"):
            make(hardness=hardness)

    def test_an_array(self):
        with pytest.raises(ValueError, match=r"hardness must be .* got array\(\[1, 2\]\)"):
            SymmMiner(hardness=np.array([1, 2]))

    @pytest.mark.parametrize("make", [*FOUR, SymmMiner])
    def test_a_synthesizer_is_no_rule(self, make):
        with pytest.raises(ValueError, match=r"hardness must be .* got SymmSynthesizer"):
            make(hardness=SymmSynthesizer())

    @pytest.mark.parametrize("make", [*FOUR, SymmMiner])
    def test_a_synthesizer_of_another_kind(self, make):
        with pytest.raises(
            TypeError, match="synthesizer must be a SymmSynthesizer, got str"
        ):
            make(synthesizer="ring")

    def test_candidates(self):
        for make in (pml_symm.SymmNPairsLoss, pml_symm.SymmAngularLoss):
            with pytest.raises(ValueError, match=r"candidates must be .* got 'six'"):
                make(candidates="six")
            with pytest.raises(ValueError, match=r"released code.* got hardness=2"):
                make(candidates="official", hardness=2)

    def test_index_space(self):
        with pytest.raises(ValueError, match=r"index_space must be .* got 'ref'"):
            SymmMiner(index_space="ref")


class TestDegenerate:
    """The loss is zero and can be back-propagated, as in PML."""

    @pytest.mark.parametrize(
        "labels",
        [[], [3], [1, 1], [5, 5, 5, 5], [1, 2, 3]],
        ids=["empty", "one point", "one pair", "one class", "singletons"],
    )
    def test_nothing_to_compare(self, pair, labels):
        labels = torch.tensor(labels, dtype=torch.long)
        values, gradients = [], []
        for loss in pair:
            embeddings = torch.randn(len(labels), 4, requires_grad=True)
            value = loss(embeddings, labels)
            value.backward()
            values.append(value.item())
            gradients.append(embeddings.grad)
        wrapped_multi_similarity = isinstance(pair[0], SymmLoss) and len(labels) > 1
        if not wrapped_multi_similarity:  # its positive pairs have a loss without negatives
            assert values[0] == 0
            assert not gradients[0].any()
        assert (values[0] == 0) == (values[1] == 0)
        assert torch.isfinite(gradients[0]).all()

    @pytest.mark.parametrize("labels", [[], [3], [1, 1], [1, 2, 3]])
    @pytest.mark.parametrize("hardness", ["hardest", 2, "semihard"])
    @pytest.mark.parametrize("space", ["batch", "pool"])
    def test_miner(self, labels, hardness, space):
        labels = torch.tensor(labels, dtype=torch.long)
        mined = SymmMiner(hardness, index_space=space)(torch.randn(len(labels), 4), labels)
        assert len(mined) == (3 if hardness == "semihard" else 4)
        assert all(x.dtype == torch.long for x in mined)
        num_pairs = 2 if labels.tolist() == [1, 1] and hardness != "semihard" else 0
        assert len(mined[0]) == len(mined[1]) == num_pairs
        of_other_classes = 6 if len(labels) == 3 and hardness != "semihard" else 0
        assert len(mined[-1]) == of_other_classes

    def test_empty_reference(self, loss):
        if refuses_reference(loss):
            pytest.skip("refuses ref_emb, as PML's NPairsLoss does")
        embeddings = torch.randn(4, 3, requires_grad=True)
        value = loss(
            embeddings,
            torch.tensor([0, 0, 1, 1]),
            ref_emb=torch.zeros(0, 3),
            ref_labels=torch.zeros(0, dtype=torch.long),
        )
        value.backward()
        assert value == 0


class TestNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("row", range(5))
    def test_never_a_finite_loss(self, loss, value, row):
        embeddings = torch.randn(5, 3)
        embeddings[row, 1] = value
        embeddings.requires_grad_()
        result = loss(embeddings, torch.tensor([0, 0, 1, 1, 2]))
        assert not torch.isfinite(result)

    def test_reference(self, loss):
        if refuses_reference(loss):
            pytest.skip("refuses ref_emb, as PML's NPairsLoss does")
        reference = torch.randn(5, 3)
        reference[4, 0] = float("nan")
        labels = torch.tensor([0, 0, 1, 1, 2])
        result = loss(torch.randn(5, 3), labels, ref_emb=reference, ref_labels=labels)
        assert not torch.isfinite(result)

    def test_gradients_tell_the_grad_scaler(self, loss):
        embeddings = torch.randn(5, 3)
        embeddings[4] = float("inf")
        embeddings.requires_grad_()
        loss(embeddings, torch.tensor([0, 0, 1, 1, 2])).backward()
        assert not torch.isfinite(embeddings.grad).all()


class TestUnusualButFinite:
    @pytest.mark.parametrize("rows", [[0], [0, 1], [0, 1, 2, 3, 4]])
    def test_zero_vectors(self, loss, rows):
        embeddings = torch.randn(5, 3)
        embeddings[rows] = 0
        embeddings.requires_grad_()
        value = loss(embeddings, torch.tensor([0, 0, 1, 1, 2]))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(embeddings.grad).all()

    def test_one_point_many_times(self, loss):
        embeddings = torch.ones(6, 3).requires_grad_()
        value = loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(embeddings.grad).all()

    def test_read_only_and_strided_inputs_are_left_alone(self, loss):
        embeddings = torch.randn(6, 8)[:, ::2]
        before = embeddings.clone()
        loss(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
        assert torch.equal(embeddings, before)
