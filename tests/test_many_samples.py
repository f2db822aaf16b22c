"""Many samples of a class: peak memory stays bounded, and all memory is freed."""

import subprocess
import sys

import pytest

# Prints the peak memory above that before, in MiB.
SCRIPT = """
import resource, sys
import torch
from pytorch_metric_learning import losses
import pml_symm

name, pairing, labels = sys.argv[1], sys.argv[2], torch.tensor(eval(sys.argv[3]))
synthesizer = pml_symm.SymmSynthesizer(pairing=pairing)
embeddings = torch.randn(len(labels), 64, requires_grad=True)
if name == "SymmMiner":
    pml_symm.SymmMiner(synthesizer=synthesizer)(embeddings[:2], labels[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pml_symm.SymmMiner(synthesizer=synthesizer)(embeddings, labels)
else:
    if name == "SymmLoss":
        miner = pml_symm.SymmMiner(synthesizer=synthesizer, index_space="pool")
        loss = pml_symm.SymmLoss(losses.MultiSimilarityLoss(), miner)
    else:
        loss = getattr(pml_symm, name)(synthesizer=synthesizer)
    loss(embeddings[:8], torch.arange(8) // 2).backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss(embeddings, labels).backward()
    assert embeddings.grad.isfinite().all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""
LABELS = {
    "two of 64": "[i // 64 for i in range(128)]",
    "five of 51": "[i // 51 for i in range(255)]",
    "ten at random": "[i * i % 97 % 10 for i in range(256)]",
    "one large and the rest alone": "[max(0, i - 127) for i in range(256)]",
}
LOSSES = ["SymmTripletMarginLoss", "SymmAngularLoss", "SymmMiner", "SymmLoss"]


def peak(name, pairing, labels):
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, pairing, labels],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return float(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
class TestMemory:
    @pytest.mark.parametrize("name", LOSSES)
    def test_ten_random_classes(self, name):
        assert peak(name, "all", LABELS["ten at random"]) < 1024

    @pytest.mark.parametrize("name", ["SymmTripletMarginLoss", "SymmMiner", "SymmLoss"])
    def test_two_classes_of_64(self, name):
        assert peak(name, "all", LABELS["two of 64"]) < 1024

    @pytest.mark.slow
    @pytest.mark.parametrize("pairing", ["all", "ring"])
    @pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
    @pytest.mark.parametrize("name", [*LOSSES, "SymmLiftedStructureLoss", "SymmNPairsLoss"])
    def test_every_batch(self, name, labels, pairing):
        assert peak(name, pairing, labels) < 1024
