import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning import losses, miners
from torch.testing import assert_close

from pml_symm import SymmSynthesizer
from pml_symm.functional import reflect

LABELS = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def pairs(pool):
    return list(zip(pool.source.tolist(), pool.axis.tolist(), strict=True))


@given(LABELS)
def test_all_mirrors_every_ordered_pair_of_a_class(labels):
    pool = SymmSynthesizer()(torch.randn(len(labels), 3), torch.tensor(labels))
    n = len(labels)
    expected = [
        (k, m) for k in range(n) for m in range(n) if k != m and labels[k] == labels[m]
    ]
    assert pairs(pool) == expected


@given(LABELS)
def test_ring_mirrors_each_member_about_the_next(labels):
    pool = SymmSynthesizer(pairing="ring")(
        torch.randn(len(labels), 3), torch.tensor(labels)
    )
    expected = []
    for k, label in enumerate(labels):
        members = [i for i, x in enumerate(labels) if x == label]
        if len(members) > 1:
            expected.append((k, members[(members.index(k) + 1) % len(members)]))
    assert pairs(pool) == expected


def test_ring_is_all_for_two_members():
    embeddings, labels = torch.randn(8, 4), torch.tensor([3, 1, 3, 2, 1, 2, 9, 9])
    everything, ring = (
        SymmSynthesizer(pairing=x)(embeddings, labels) for x in ("all", "ring")
    )
    for x, y in zip(everything, ring, strict=True):
        assert torch.equal(x, y)


def test_pool_is_the_batch_and_then_the_mirror_images():
    embeddings, labels = torch.randn(5, 4), torch.tensor([1, 0, 1, 1, 7])
    pool = SymmSynthesizer(alpha=1.5, beta=0.5)(embeddings, labels)
    assert pool.num_originals == 5
    assert torch.equal(pool.embeddings[:5], embeddings)
    expected = reflect(embeddings[pool.source], embeddings[pool.axis], 1.5, 0.5)
    assert_close(pool.synthetic, expected)
    assert torch.equal(pool.synthetic_labels, torch.ones(6, dtype=torch.long))
    assert torch.equal(pool.labels[:5], labels)
    assert pool.nearest_original.tolist() == [0, 1, 2, 3, 4, *pool.axis.tolist()]
    storage = pool.embeddings.untyped_storage()
    assert pool.synthetic.untyped_storage().data_ptr() == storage.data_ptr()


def test_autograd_flows_to_source_and_axis():
    embeddings = torch.randn(3, 4, requires_grad=True)
    pool = SymmSynthesizer()(embeddings, torch.tensor([0, 0, 1]))
    pool.synthetic[0].sum().backward()
    assert embeddings.grad[:2].abs().sum(dim=1).min() > 0
    assert embeddings.grad[2].abs().sum() == 0


@pytest.mark.parametrize(
    "miner",
    [
        miners.AngularMiner(),
        miners.BatchEasyHardMiner(),
        miners.BatchHardMiner(),
        miners.DistanceWeightedMiner(),
        miners.HDCMiner(),
        miners.MultiSimilarityMiner(),
        miners.PairMarginMiner(),
        miners.TripletMarginMiner(type_of_triplets="semihard"),
        miners.UniformHistogramMiner(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_pairs_of_any_pml_miner_are_mirrored_both_ways(miner):
    embeddings = torch.nn.functional.normalize(torch.randn(12, 4))
    labels = torch.arange(4).repeat(3)
    mined = miner(embeddings, labels)
    pool = SymmSynthesizer()(embeddings, labels, mined)
    chosen = set(zip(mined[0].tolist(), mined[1].tolist(), strict=True))
    assert set(pairs(pool)) == chosen | {(p, a) for a, p in chosen}
    assert len(set(pairs(pool))) == len(pairs(pool)) > 0


def test_pool_goes_into_pml_miners_and_losses():
    embeddings = torch.randn(8, 4, requires_grad=True)
    labels = torch.arange(4).repeat(2)
    pool = SymmSynthesizer()(embeddings, labels)
    batch = pool.embeddings, pool.labels
    as_batch = losses.TripletMarginLoss()(*batch, miners.BatchHardMiner()(*batch))
    mined = miners.MultiSimilarityMiner()(embeddings, labels, *batch)
    as_reference = losses.MultiSimilarityLoss()(embeddings, labels, mined, *batch)
    (as_batch + as_reference).backward()
    assert as_batch > 0 and as_reference > 0
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    pool = SymmSynthesizer()(torch.randn(4, 3, dtype=dtype), torch.tensor([0, 0, 1, 1]))
    assert pool.embeddings.dtype == dtype


@pytest.mark.parametrize("labels", [[], [4], [4, 5, 6]])
@pytest.mark.parametrize("pairing", ["all", "ring"])
def test_nothing_to_mirror(labels, pairing):
    embeddings = torch.randn(len(labels), 3)
    pool = SymmSynthesizer(pairing=pairing)(
        embeddings, torch.tensor(labels, dtype=torch.long)
    )
    assert torch.equal(pool.embeddings, embeddings)
    assert len(pool.synthetic) == len(pool.source) == len(pool.axis) == 0


class TestBadInput:
    def test_arguments(self):
        with pytest.raises(ValueError, match=r"pairing must be .* got 'pairs'"):
            SymmSynthesizer(pairing="pairs")
        with pytest.raises(ValueError, match=r"alpha must be .* got -1"):
            SymmSynthesizer(alpha=-1)
        with pytest.raises(ValueError, match=r"beta must be .* got 0"):
            SymmSynthesizer(beta=0)

    @pytest.mark.parametrize(
        ("indices", "message"),
        [
            ((torch.tensor([0]), torch.tensor([1])), "got 2 values"),
            (7, "got int"),
            (([0], [1], [2]), "got 3 values"),
            (torch.tensor([[0], [1], [2]]).unbind() + (torch.tensor([3]),) * 2, "got 5"),
            ((torch.tensor([0]), torch.tensor([8]), torch.tensor([1])), "row 8.* 4 rows"),
            ((torch.tensor([-1]), torch.tensor([1]), torch.tensor([1])), "row -1"),
            ((torch.tensor([0]), torch.tensor([2]), torch.tensor([1])), "rows 0 and 2"),
            ((torch.tensor([0, 1]), torch.tensor([1]), torch.tensor([1])), r"\(2,\)"),
        ],
    )
    def test_indices_tuple(self, indices, message):
        with pytest.raises(ValueError, match=f"indices_tuple.*{message}"):
            SymmSynthesizer()(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), indices)

    def test_indices_that_are_not_integers(self):
        indices = tuple(torch.tensor([x]) for x in (0.0, 1.0, 2.0))
        with pytest.raises(TypeError, match=r"integers, got torch\.float32"):
            SymmSynthesizer()(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), indices)


def test_neither_the_control_nor_a_pair_of_one_point_mirrors():
    embeddings, labels = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    anchors, negatives = torch.tensor([0]), torch.tensor([2])
    control = SymmSynthesizer(pairing="none")
    assert len(control(embeddings, labels, (anchors, anchors + 1, negatives)).source) == 0
    pool = SymmSynthesizer()(embeddings, labels, (anchors, anchors, negatives))
    assert len(pool.source) == 0
