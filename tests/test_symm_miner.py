import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning import distances, losses, miners
from pytorch_metric_learning.utils.distributed import DistributedMinerWrapper

from pml_symm import SymmLoss, SymmMiner, SymmNPairsLoss, SymmSynthesizer

MINER_PAGE = Path(__file__).parents[1] / "docs" / "miner.md"


def batch(m=2, classes=4, size=5):
    labels = torch.arange(classes).repeat(m)
    return torch.randn(len(labels), size), labels


def test_is_a_pml_miner():
    miner = SymmMiner(distance=distances.CosineSimilarity(), collect_stats=True)
    assert isinstance(miner, miners.BaseMiner)
    miner(*batch())
    assert (miner.num_pos_pairs, miner.num_neg_pairs) == (8, 8 * 3)
    assert 0 < miner.synthetic_ratio <= 1


def test_batch_indices_are_the_axes_of_the_pool_indices():
    embeddings, labels = batch(m=3)
    synthesizer = SymmSynthesizer(pairing="ring")
    pool = synthesizer(embeddings, labels)
    in_batch, in_pool = (
        SymmMiner(synthesizer=synthesizer, index_space=space)(embeddings, labels)
        for space in ("batch", "pool")
    )
    for x, y in zip(in_batch[:3], in_pool[:3], strict=True):
        assert torch.equal(x, y)
    assert (in_pool[3] >= 12).any()
    assert torch.equal(in_batch[3], pool.nearest_original[in_pool[3]])


def test_pool_indices_in_the_documented_three_lines():
    embeddings, labels = batch()
    pool = SymmSynthesizer()(embeddings, labels)
    indices = SymmMiner(index_space="pool")(embeddings, labels)
    loss_func = losses.TripletMarginLoss()
    harder = loss_func(embeddings, labels, indices, pool.embeddings, pool.labels)
    assert harder > loss_func(embeddings, labels)


class TestPoolIndicesWithoutThePool:
    """PML raises the error, without this package's code: docs/miner.md explains it."""

    @pytest.mark.parametrize("hardness", ["hardest", "semihard"])
    def test_pml_ends_in_the_documented_error(self, hardness):
        embeddings, labels = batch()
        miner, loss = SymmMiner(hardness, index_space="pool"), losses.TripletMarginLoss()
        indices = miner(embeddings, labels)
        (documented,) = re.findall(r"^IndexError: (.*)$", MINER_PAGE.read_text(), re.M)
        message = re.sub(r"\d+", r"\\d+", documented)
        for use in (
            lambda: loss(embeddings, labels, indices),
            lambda: losses.CrossBatchMemory(loss, 5, 20, miner)(embeddings, labels),
            lambda: losses.MultipleLosses([loss], [miner])(embeddings, labels),
        ):
            with pytest.raises(IndexError, match=message):
                use()

    @pytest.mark.parametrize(
        "loss", [SymmNPairsLoss(), SymmLoss(losses.TripletMarginLoss())], ids=["own", "any"]
    )
    def test_symm_losses_take_the_positive_pairs(self, loss):
        embeddings, labels = batch()
        indices = SymmMiner(index_space="pool")(embeddings, labels)
        assert loss(embeddings, labels, indices) == loss(embeddings, labels)


@given(st.permutations(range(8)), st.sampled_from(["hardest", 2, "semihard"]))
def test_permuting_the_batch_permutes_the_indices(order, hardness):
    torch.manual_seed(1)
    embeddings, labels = batch()
    miner = SymmMiner(hardness)
    mined = miner(embeddings, labels)
    permuted = miner(embeddings[order], labels[order])
    order = torch.tensor(order)

    def as_sets(indices):
        tuples = [indices] if len(indices) == 3 else [indices[:2], indices[2:]]
        return [{tuple(x) for x in torch.stack(t, dim=1).tolist()} for t in tuples]

    assert as_sets(tuple(order[x] for x in permuted)) == as_sets(mined)


def test_far_axis_wins_over_near_original():
    """A selected synthetic point is returned as its axis, even if its source is nearer."""
    angles = torch.deg2rad(torch.tensor([0.0, 180.0, 80.0, 120.0]))
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Mirroring 120 about 80 gives 40, the point nearest to 0: its axis is row 2.
    _, _, anchors, negatives = SymmMiner()(embeddings, torch.tensor([0, 1, 2, 2]))
    of_first = negatives[anchors == 0]
    assert of_first.tolist() == [1, 2]


@pytest.mark.parametrize("hardness", ["hardest", 2, "semihard"])
def test_cross_batch_memory(hardness):
    loss = losses.CrossBatchMemory(
        losses.ContrastiveLoss(),
        embedding_size=5,
        memory_size=20,
        miner=SymmMiner(hardness),
    )
    for _ in range(5):
        embeddings, labels = batch()
        embeddings.requires_grad_()
        value = loss(embeddings, labels)
        value.backward()
        assert value > 0 and torch.isfinite(embeddings.grad).all()


def test_multiple_losses():
    total = losses.MultipleLosses(
        [losses.ContrastiveLoss(), losses.TripletMarginLoss()],
        miners=[SymmMiner(), None],
    )
    embeddings, labels = batch()
    indices = SymmMiner()(embeddings, labels)
    expected = losses.ContrastiveLoss()(embeddings, labels, indices)
    expected = expected + losses.TripletMarginLoss()(embeddings, labels)
    assert torch.equal(total(embeddings, labels), expected)


@pytest.mark.usefixtures("process_group")
def test_distributed_miner_wrapper():
    embeddings, labels = batch()
    wrapped = DistributedMinerWrapper(SymmMiner())(embeddings, labels)
    for x, y in zip(wrapped, SymmMiner()(embeddings, labels), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    embeddings, labels = batch(classes=8, size=16)
    rounded = embeddings.to(dtype)
    # The pool is rounded to the batch's dtype: the loss gets it like that.
    pool = SymmSynthesizer()(rounded, labels).embeddings.float()
    expected = distances.LpDistance()(rounded.float(), pool).min(dim=1).values
    assert torch.isfinite(expected).all()
    miner = SymmMiner(index_space="pool")
    a1, p, a2, n = miner(rounded, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for x, y in zip(miner(rounded, labels), (a1, p, a2, n), strict=True):
            assert torch.equal(x, y)
    matrix = distances.LpDistance()(rounded.float(), pool)
    pool_labels = SymmSynthesizer()(rounded, labels).labels
    for anchor, negative in zip(a2.tolist(), n.tolist(), strict=True):
        of_class = pool_labels == pool_labels[negative]
        assert matrix[anchor, negative] == matrix[anchor, of_class].min()


@pytest.mark.parametrize("hardness", ["hardest", 2, "semihard"])
@pytest.mark.parametrize("space", ["batch", "pool"])
def test_a_clone_is_the_same(space, hardness):
    embeddings, labels = batch(m=3)
    reference, ref_labels = batch(m=2)
    miner = SymmMiner(hardness, index_space=space)
    for others in ((), (reference, ref_labels)):
        expected = miner(embeddings, labels, *others)
        cloned = miner(embeddings.clone(), labels.clone(), *(x.clone() for x in others))
        for one, other in zip(cloned, expected, strict=True):
            assert torch.equal(one, other)


def test_the_batch_with_other_labels_is_a_reference():
    embeddings, labels = batch()
    other = labels.roll(1)
    expected = SymmMiner()(embeddings, labels, embeddings.clone(), other)
    for one, same in zip(
        SymmMiner()(embeddings, labels, embeddings, other), expected, strict=True
    ):
        assert torch.equal(one, same)


def test_mining_needs_no_gradient():
    embeddings, labels = batch()
    with_gradient = SymmMiner()(embeddings.requires_grad_(), labels)
    assert not any(x.requires_grad for x in with_gradient)
