"""Every method is what docs/benchmarks.md says behind its name."""

import pytest
import torch
from pytorch_metric_learning import losses, miners

from benchmarks.methods.methods import METHODS, Synthesis
from pml_symm import SymmNPairsLoss, SymmSynthesizer

SIZES = {"num_classes": 7, "embedding_size": 5, "batch_size": 6}
OF_PML = {
    "Contrastive": (losses.ContrastiveLoss, None),
    "Triplet": (losses.TripletMarginLoss, None),
    "Triplet, semi-hard": (losses.TripletMarginLoss, miners.TripletMarginMiner),
    "Triplet, batch-hard": (losses.TripletMarginLoss, miners.BatchHardMiner),
    "Triplet, offline hard": (losses.TripletMarginLoss, None),
    "N-pairs": (losses.NPairsLoss, None),
    "N-pairs, offline hard": (losses.NPairsLoss, None),
    "N-pairs, normalized": (losses.NPairsLoss, None),
    "Lifted": (losses.LiftedStructureLoss, None),
    "Angular": (losses.AngularLoss, None),
    "Multi-similarity": (losses.MultiSimilarityLoss, None),
    "Multi-similarity, mined": (losses.MultiSimilarityLoss, miners.MultiSimilarityMiner),
    "Margin": (losses.MarginLoss, None),
    "NT-Xent": (losses.NTXentLoss, None),
    "NT-Xent, 0.05": (losses.NTXentLoss, None),
    "Proxy-anchor": (losses.ProxyAnchorLoss, None),
    "DAML + Triplet": (losses.TripletMarginLoss, None),
    "HDML + N-pairs": (losses.NPairsLoss, None),
}


def make(name):
    return METHODS[name].make(Synthesis(), **SIZES)


@pytest.mark.parametrize("name", OF_PML)
def test_losses_and_miners_are_pml_s(name):
    loss, miner = make(name)
    assert (type(loss), miner and type(miner)) == OF_PML[name]


def test_the_memory_has_eight_batches():
    loss, miner = make("Contrastive, memory")
    assert isinstance(loss, losses.CrossBatchMemory)
    assert miner is None
    assert tuple(loss.embedding_memory.shape) == (8 * 6, 5)
    assert type(loss.loss) is losses.ContrastiveLoss
    assert (loss.loss.pos_margin, loss.loss.neg_margin) == (0, 0.5)
    assert loss.miner is None


def test_semi_hard_triplets_are_within_the_loss_s_margin():
    loss, miner = make("Triplet, semi-hard")
    assert (miner.margin, miner.type_of_triplets) == (loss.margin, "semihard")


def test_the_other_temperature_is_that_of_its_name():
    loss, _ = make("NT-Xent, 0.05")
    assert loss.temperature == 0.05


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("N-pairs, normalized", losses.NPairsLoss()),
        ("Symm + N-pairs, normalized", SymmNPairsLoss()),
        (
            "N-pairs, normalized, hardest originals",
            SymmNPairsLoss(synthesizer=SymmSynthesizer(pairing="none")),
        ),
    ],
)
def test_normalized_n_pairs_has_the_defaults(name, default):
    torch.manual_seed(0)
    embeddings, labels = 3 * torch.randn(12, 5), torch.arange(6).repeat(2)
    loss, _ = make(name)
    torch.testing.assert_close(loss(embeddings, labels), default(embeddings, labels))


def test_proxies_are_of_the_classes():
    loss, _ = make("Proxy-anchor")
    assert tuple(loss.proxies.shape) == (7, 5)
    assert METHODS["Proxy-anchor"].loss_factor == 100


def test_offline_hard_methods_have_batches_of_hard_classes():
    samplers = {name: method.sampler for name, method in METHODS.items()}
    chosen = {name for name, sampler in samplers.items() if sampler == "hard classes"}
    assert chosen == {"Triplet, offline hard", "N-pairs, offline hard"}
