"""The losses and the miner against plain loops: values, gradients and indices.

The cases cover every two options, and every three of what is compared, how it is
compared, and what is selected.
"""

import pytest
import torch
from pytorch_metric_learning import losses

from pml_symm import SymmLoss, SymmMiner, SymmSynthesizer
from pml_symm import functional as F
from pml_symm.functional import rules, search

from . import oracle
from .covering import covering
from .losses import DISTANCES, LOSSES, RULES, WITH_REFERENCE

HARDNESS = ["hardest", 2, 7, 1000, "semihard", *RULES]
SYNTHESIS = {
    "default": {},
    "ring": {"pairing": "ring"},
    "none": {"pairing": "none"},
    "ratios": {"alpha": 1.5, "beta": 0.5},
    "nearly one": {"alpha": 1.05},
}
LABELS = {
    "pairs": [0, 1, 2, 2, 1, 0],
    "ragged": [7, -3, 7, 7, 2**40, -3, 5, 7],
    "singletons": [4, 1, 4, 2, 1, 9, 9, 9],
    "threes": [3, 3, 3, 8, 8, 8, 5, 5, 5],
    # More than eight positive pairs in a class.
    "many": [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 5],
}
# Batch and reference: each has a class that the other has not.
REFERENCE = [0, 0, 3, 1, 8], [1, 0, 2, 1, 2, 3, 0]
# However large the blocks are in which candidates are searched and winners computed.
BLOCKS = {
    "as they are": {},
    "some classes": {"_CANDIDATES": {"cpu": 300}},
    "one point": {"_CANDIDATES": {"cpu": 1}},
    "of an unknown device": {"_CANDIDATES": {}, "_MOST_CANDIDATES": 40},
    "computed again": {"_MOST_PRODUCTS": 1, "_MOST_KEPT": 1},
    "some computed again": {"_MOST_PRODUCTS": 60, "_MOST_KEPT": 60},
    "halved": {"_HALVED": {"cpu": 1}},
    "limits sorted": {"_PAIRS_IN_TURN": 0},
}
OPTIONS = {
    "what": [*LOSSES, "miner", "miner of the pool"],
    "distance": [*DISTANCES],
    "hardness": HARDNESS,
    "synthesis": [*SYNTHESIS],
    "labels": [*LABELS, "reference"],
    "blocks": [*BLOCKS],
    "way": ["class", "function"],
}


def is_valid(case):
    if case["what"] == "angular" and case["distance"] == "snr":
        return False  # it is defined by dot products
    return case["what"] != "n-pairs" or case["labels"] != "reference"


def cases():
    of_three = {name: OPTIONS[name] for name in ("what", "distance", "hardness")}
    of_three["labels"] = [*LABELS, "reference"]
    found = covering(OPTIONS, is_valid)
    # Every three of four options, and the others in turn.
    for number, case in enumerate(covering(of_three, is_valid, strength=3)):
        others = {
            name: OPTIONS[name][number % len(OPTIONS[name])]
            for name in OPTIONS
            if name not in case
        }
        found.append(case | others)
    return found


def batch_of(labels, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(labels), 4, generator=generator, dtype=torch.float64) * scale
    return x.requires_grad_(), torch.tensor(labels)


def assert_same(loss, expected, *inputs):
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    found = torch.autograd.grad(loss, inputs)
    # Without any term, the oracle's zero depends on nothing.
    expected = expected + 0 * sum(x.sum() for x in inputs)
    wanted = torch.autograd.grad(expected, inputs, retain_graph=True)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def assert_mined(mined, expected, hardness):
    mined = [index.tolist() for index in mined]
    if hardness == "semihard" or callable(hardness):
        found = list(zip(*mined, strict=True))
        assert len(found) == len(set(found))
        assert set(found) == expected
        return
    a1, p, a2, n = mined
    positives, negatives = (list(zip(*x, strict=True)) for x in ((a1, p), (a2, n)))
    assert (set(positives), set(negatives)) == expected
    assert len(positives) == len(set(positives))
    assert len(negatives) == len(expected[1])


@pytest.fixture
def case(request, monkeypatch):
    for name, value in BLOCKS[request.param["blocks"]].items():
        module = rules if hasattr(rules, name) else search
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, value)
    return request.param


@pytest.mark.parametrize(
    "case", cases(), indirect=True, ids=lambda x: "-".join(map(str, x.values()))
)
def test_against_loops(case):
    distance, synthesis = DISTANCES[case["distance"]], SYNTHESIS[case["synthesis"]]
    hardness, wanted_hardness = RULES.get(case["hardness"], [case["hardness"]] * 2)
    what, by_class = case["what"], case["way"] == "class"
    reference = []
    if case["labels"] == "reference":
        x, labels = batch_of(REFERENCE[0], 5)
        reference = batch_of(REFERENCE[1], 6)
    else:
        x, labels = batch_of(LABELS[case["labels"]], 1)
    expected_arguments = [x, labels, distance.oracle, wanted_hardness]
    options = {"hardness": hardness}
    if by_class:
        options["synthesizer"] = SymmSynthesizer(**synthesis)
        options["distance"] = distance.pml()
    else:
        options["synthesis"] = F.Synthesis(**synthesis)
        options["distance"] = distance.functional
        names = "reference", "reference_labels"
        options |= dict(zip(names, reference, strict=False))
    if reference:
        synthesis = synthesis | dict(zip(("ref_emb", "ref_labels"), reference, strict=True))
    if what.startswith("miner"):
        space = "pool" if what.endswith("pool") else "batch"
        if by_class:
            mined = SymmMiner(index_space=space, **options)(x, labels, *reference)
        else:
            mined = F.mine(x, labels, index_space=space, **options)
        expected = oracle.mine(*expected_arguments, space, **synthesis)
        assert_mined(mined, expected, hardness)
        return
    loss = LOSSES[what]
    own = {
        "n-pairs": {},
        "triplet": {"margin": 0.3},
        "lifted": {"neg_margin": 0.8, "pos_margin": 0.1},
        "angular": {"alpha": 35},
    }[what]
    if by_class:
        value = loss.symm(**own, **options)(x, labels, None, *reference)
    else:
        if what == "angular":
            normalize = options["distance"].normalize
            options["distance"] = F.DotProduct(normalize=normalize)
        value = loss.function(x, labels, **own, **options)
    if what == "n-pairs":
        synthesis = dict(synthesis)
        synthesis["synthesize"] = synthesis.pop("pairing", "all") != "none"
    if what == "angular":
        own = {"degrees": 35}
    expected = loss.oracle(*expected_arguments, **own, **synthesis)
    assert_same(value, expected, x, *reference[:1])


@pytest.mark.parametrize("loss", [LOSSES[x] for x in ("triplet", "lifted", "angular")])
def test_the_chosen_positive_pairs(loss):
    x, labels = batch_of(LABELS["ragged"], 3)
    anchors, positives = torch.tensor([0, 0, 5]), torch.tensor([2, 2, 1])
    negatives = torch.tensor([1, 4, 0])  # the loss's own negatives are used instead
    metric = DISTANCES["sphere"].oracle
    expected = loss.oracle(x, labels, metric, pairs=[(0, 2), (5, 1)])
    assert_same(loss.symm()(x, labels, (anchors, positives, negatives)), expected, x)
    assert_same(loss.function(x, labels, pairs=(anchors, positives)), expected, x)


def test_every_loss_but_n_pairs_takes_a_reference():
    assert [loss.symm for name, loss in LOSSES.items() if name != "n-pairs"] == (
        WITH_REFERENCE
    )


@pytest.mark.parametrize("name", [x for x in DISTANCES if x != "snr"])
def test_wrapped_contrastive_loss(name):
    metric, distance = DISTANCES[name].oracle, DISTANCES[name].pml()
    x, labels = batch_of(LABELS["ragged"], 4, scale=0.5)
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
