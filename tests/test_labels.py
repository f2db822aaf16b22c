"""Labels of every dtype mean the same classes."""

import pytest
import torch
from pytorch_metric_learning import losses

from pml_symm import (
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmSynthesizer,
    SymmTripletMarginLoss,
)

from .losses import FOUR

DTYPES = (
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.float16, torch.float64),
)
LOSSES = (
    *FOUR,
    lambda: SymmLoss(losses.MultiSimilarityLoss()),
)
LABELS = torch.tensor([5, 5, 2, 2, 2, 7, 0, 0])
ANYTHING = (*LOSSES, SymmMiner, SymmSynthesizer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", LOSSES)
def test_losses(make, dtype):
    embeddings, loss_func = torch.randn(8, 6), make()
    expected = loss_func(embeddings, LABELS)
    labels = LABELS.to(dtype)
    assert loss_func(embeddings, labels) == expected
    reference = torch.randn(8, 6)
    if make is not SymmNPairsLoss:  # PML's takes no reference
        expected = loss_func(embeddings, LABELS, None, reference, LABELS.flip(0))
        found = loss_func(embeddings, labels, None, reference, LABELS.flip(0).to(dtype))
        assert found == expected
        # The batch as its own reference, as in PML's CrossBatchMemory.
        expected = loss_func(embeddings, LABELS, None, embeddings, LABELS)
        assert loss_func(embeddings, labels, None, embeddings, labels) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index_space", ["batch", "pool"])
def test_miner(index_space, dtype):
    embeddings, miner = torch.randn(8, 6), SymmMiner(index_space=index_space)
    expected = miner(embeddings, LABELS)
    for found, wanted in zip(miner(embeddings, LABELS.to(dtype)), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairing", ["all", "ring", "none"])
def test_synthesizer(pairing, dtype):
    pool = SymmSynthesizer(pairing=pairing)(torch.randn(8, 6), LABELS.to(dtype))
    assert torch.equal(pool.labels[:8].long(), LABELS)
    assert torch.equal(pool.synthetic_labels.long(), LABELS[pool.source])


def test_boolean_labels_are_two_classes():
    embeddings, labels = torch.randn(4, 3), torch.tensor([True, True, False, False])
    loss_func = SymmTripletMarginLoss()
    assert loss_func(embeddings, labels) == loss_func(embeddings, labels.long())


@pytest.mark.parametrize("make", ANYTHING)
def test_large_labels_stay_apart(make):
    """Above 2^24 float32 would merge neighbouring labels."""
    embeddings = torch.randn(8, 6)
    near = LABELS + (1 << 40)
    found, expected = make()(embeddings, near), make()(embeddings, LABELS)
    if isinstance(found, torch.Tensor):
        assert found == expected
    else:
        assert torch.equal(found[-1], expected[-1])


@pytest.mark.parametrize("make", ANYTHING)
def test_labels_beyond_int64_are_refused(make):
    labels = torch.tensor([1, 1, 2, 2, 2**63 + 5, 2**63 + 5], dtype=torch.uint64)
    with pytest.raises(ValueError, match=r"labels must be at most \d+, got 9\d+813$"):
        make()(torch.randn(6, 4), labels)
