"""The losses, the miner and the wrapper against plain loops, value and gradient."""

import pytest
import torch
from pytorch_metric_learning import distances, losses

from pml_symm import (
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmSynthesizer,
    SymmTripletMarginLoss,
)

from . import oracle

METRICS = {
    "dot": (
        oracle.Metric("dot", False),
        distances.DotProductSimilarity(normalize_embeddings=False),
    ),
    "cosine": (oracle.Metric("dot", True), distances.CosineSimilarity()),
    "euclidean": (
        oracle.Metric("euclidean", False),
        distances.LpDistance(normalize_embeddings=False),
    ),
    "sphere": (oracle.Metric("euclidean", True), distances.LpDistance()),
}
HARDNESS = ["hardest", 2, 7, 1000, "semihard"]
SYNTHESIS = [
    {},
    {"pairing": "ring"},
    {"pairing": "none"},
    {"alpha": 1.5, "beta": 0.5},
]
LABELS = [
    [0, 0, 1, 1, 2, 2],
    [7, -3, 7, 7, 2**40, -3, 5, 7],
    [4, 1, 4, 2, 1, 9, 9, 9],
]


def ragged_batch(labels, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(labels), 4, generator=generator, dtype=torch.float64) * scale
    return x.requires_grad_(), torch.tensor(labels)


def assert_same(loss, expected, *inputs):
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    gradients = [
        torch.autograd.grad(y, inputs, retain_graph=True) for y in (loss, expected)
    ]
    for actual, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("synthesis", SYNTHESIS, ids=str)
@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(len(LABELS)))
class TestOnBatch:
    def test_n_pairs(self, name, hardness, synthesis, seed):
        metric, distance = METRICS[name]
        x, labels = ragged_batch(LABELS[seed], seed)
        loss = SymmNPairsLoss(
            distance=distance,
            hardness=hardness,
            synthesizer=SymmSynthesizer(**synthesis),
        )
        ratios = {k: v for k, v in synthesis.items() if k != "pairing"}
        ratios["synthesize"] = synthesis.get("pairing") != "none"
        assert_same(
            loss(x, labels), oracle.n_pairs(x, labels, metric, hardness, **ratios), x
        )

    def test_triplet(self, name, hardness, synthesis, seed):
        metric, distance = METRICS[name]
        x, labels = ragged_batch(LABELS[seed], seed)
        loss = SymmTripletMarginLoss(
            margin=0.3,
            distance=distance,
            hardness=hardness,
            synthesizer=SymmSynthesizer(**synthesis),
        )
        expected = oracle.triplet(x, labels, metric, hardness, 0.3, **synthesis)
        assert_same(loss(x, labels), expected, x)

    def test_lifted(self, name, hardness, synthesis, seed):
        metric, distance = METRICS[name]
        x, labels = ragged_batch(LABELS[seed], seed)
        loss = SymmLiftedStructureLoss(
            neg_margin=0.8,
            pos_margin=0.1,
            distance=distance,
            hardness=hardness,
            synthesizer=SymmSynthesizer(**synthesis),
        )
        expected = oracle.lifted(x, labels, metric, hardness, 0.8, 0.1, **synthesis)
        assert_same(loss(x, labels), expected, x)

    def test_angular(self, name, hardness, synthesis, seed):
        metric, distance = METRICS[name]
        x, labels = ragged_batch(LABELS[seed], seed)
        loss = SymmAngularLoss(
            alpha=35,
            distance=distance,
            hardness=hardness,
            synthesizer=SymmSynthesizer(**synthesis),
        )
        expected = oracle.angular(x, labels, metric, hardness, 35, **synthesis)
        assert_same(loss(x, labels), expected, x)

    @pytest.mark.parametrize("space", ["batch", "pool"])
    def test_miner(self, name, hardness, synthesis, seed, space):
        metric, distance = METRICS[name]
        x, labels = ragged_batch(LABELS[seed], seed)
        miner = SymmMiner(hardness, SymmSynthesizer(**synthesis), space, distance=distance)
        mined = [index.tolist() for index in miner(x, labels)]
        expected = oracle.mine(x, labels, metric, hardness, space, **synthesis)
        if hardness == "semihard":
            assert set(zip(*mined, strict=True)) == expected
        else:
            a1, p, a2, n = mined
            assert (set(zip(a1, p)), set(zip(a2, n))) == expected  # noqa: B905
            assert len(set(a1)) <= len(labels)
            assert len(a2) == len(labels) * (len(set(labels.tolist())) - 1)


@pytest.mark.parametrize("hardness", ["hardest", 3, "semihard"])
@pytest.mark.parametrize("name", METRICS)
class TestWithReference:
    def batches(self):
        x, labels = ragged_batch([0, 0, 3, 1, 8], 5)
        ref, ref_labels = ragged_batch([1, 0, 2, 1, 2, 3, 0], 6)
        return x, labels, ref, ref_labels

    @pytest.mark.parametrize(
        ("symm_loss", "expected"),
        [
            (SymmTripletMarginLoss, oracle.triplet),
            (SymmLiftedStructureLoss, oracle.lifted),
            (SymmAngularLoss, oracle.angular),
        ],
    )
    def test_losses(self, name, hardness, symm_loss, expected):
        metric, distance = METRICS[name]
        x, labels, ref, ref_labels = self.batches()
        loss = symm_loss(distance=distance, hardness=hardness)(
            x, labels, ref_emb=ref, ref_labels=ref_labels
        )
        wanted = expected(x, labels, metric, hardness, ref_emb=ref, ref_labels=ref_labels)
        assert_same(loss, wanted, x, ref)

    @pytest.mark.parametrize("space", ["batch", "pool"])
    def test_miner(self, name, hardness, space):
        metric, distance = METRICS[name]
        x, labels, ref, ref_labels = self.batches()
        miner = SymmMiner(hardness, index_space=space, distance=distance)
        mined = [index.tolist() for index in miner(x, labels, ref, ref_labels)]
        expected = oracle.mine(
            x, labels, metric, hardness, space, ref_emb=ref, ref_labels=ref_labels
        )
        if hardness == "semihard":
            assert set(zip(*mined, strict=True)) == expected
        else:
            a1, p, a2, n = mined
            assert (set(zip(a1, p)), set(zip(a2, n))) == expected  # noqa: B905


@pytest.mark.parametrize(
    ("symm_loss", "expected"),
    [
        (SymmTripletMarginLoss, oracle.triplet),
        (SymmLiftedStructureLoss, oracle.lifted),
        (SymmAngularLoss, oracle.angular),
    ],
)
def test_indices_tuple_selects_the_positive_pairs(symm_loss, expected):
    x, labels = ragged_batch(LABELS[1], 3)
    anchors, positives = torch.tensor([0, 0, 5]), torch.tensor([2, 2, 1])
    negatives = torch.tensor([1, 4, 0])  # the loss's own negatives are used instead
    loss = symm_loss()(x, labels, (anchors, positives, negatives))
    metric = METRICS["sphere"][0]
    assert_same(loss, expected(x, labels, metric, pairs=[(0, 2), (5, 1)]), x)


@pytest.mark.parametrize("name", METRICS)
def test_wrapped_contrastive_loss(name):
    metric, distance = METRICS[name]
    x, labels = ragged_batch(LABELS[1], 4, scale=0.5)
    inverted = metric.kind == "dot"
    wrapped = losses.ContrastiveLoss(
        distance=distance,
        pos_margin=1.0 if inverted else 0.0,
        neg_margin=0.2 if inverted else 1.0,
    )
    expected = oracle.contrastive_on_pool(
        x, labels, metric, 0.2 if inverted else 1.0, alpha=1.7
    )
    miner = SymmMiner(
        synthesizer=SymmSynthesizer(alpha=1.7), index_space="pool", distance=distance
    )
    assert_same(SymmLoss(wrapped, miner)(x, labels), expected, x)
