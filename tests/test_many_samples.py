"""Many samples of a class: peak memory stays bounded, whatever the rule."""

import subprocess
import sys

import pytest

# Prints the peak memory above that before, in MiB, and the seconds that it took.
SCRIPT = """
import resource, sys, time
import torch
from pytorch_metric_learning import losses
import pml_symm

def capped(candidates):
    synthetic = candidates.row_synthetic | candidates.column_synthetic
    too_hard = synthetic & (candidates.score >= candidates.positive)
    return candidates.score.masked_fill(too_hard, -torch.inf)

name, pairing, hardness, labels = sys.argv[1:]
hardness = {"3": 3, "capped": capped}.get(hardness, hardness)
labels = torch.tensor(eval(labels))
options = dict(synthesizer=pml_symm.SymmSynthesizer(pairing=pairing), hardness=hardness)
embeddings = torch.randn(len(labels), 512, requires_grad=True)
if name == "SymmMiner":
    use = pml_symm.SymmMiner(**options)
elif name == "SymmLoss":
    miner = pml_symm.SymmMiner(index_space="pool", **options)
    use = pml_symm.SymmLoss(losses.MultiSimilarityLoss(), miner)
else:
    use = getattr(pml_symm, name)(**options)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
step = lambda x, y: use(x, y) if name == "SymmMiner" else use(x, y).backward()
step(embeddings[:8], torch.arange(8) // 2)
before, start = peak(), time.perf_counter()
step(embeddings, labels)
print(peak() - before, time.perf_counter() - start)
"""
LABELS = {
    "two of 128": "[i // 128 for i in range(256)]",
    "two of 64": "[i // 64 for i in range(128)]",
    "five of 51": "[i // 51 for i in range(255)]",
    "ten at random": "[i * i % 97 % 10 for i in range(256)]",
    "64 of four": "[i // 4 for i in range(256)]",
    "one large and the rest alone": "[max(0, i - 127) for i in range(256)]",
}
LOSSES = [
    "SymmNPairsLoss",
    "SymmTripletMarginLoss",
    "SymmLiftedStructureLoss",
    "SymmAngularLoss",
]
EVERY = [*LOSSES, "SymmMiner", "SymmLoss"]


def peak(name, pairing, labels, hardness="hardest"):
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, pairing, hardness, labels],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    mebibytes, seconds = map(float, found.stdout.split())
    print(f"{name}, {hardness}, {pairing}: {mebibytes:.0f} MiB, {seconds:.1f} s")
    return mebibytes


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
class TestMemory:
    @pytest.mark.parametrize(
        ("name", "hardness"),
        [("SymmTripletMarginLoss", "semihard"), ("SymmMiner", "hardest")],
    )
    def test_ten_random_classes(self, name, hardness):
        assert peak(name, "all", LABELS["ten at random"], hardness) < 1024

    def test_a_ring_of_a_thousand(self):
        labels = "[max(0, i - 1023) for i in range(1027)]"
        assert peak("SymmMiner", "ring", labels) < 256

    @pytest.mark.slow
    @pytest.mark.parametrize("hardness", ["hardest", "3", "semihard", "capped"])
    @pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
    @pytest.mark.parametrize("name", EVERY)
    def test_every_batch(self, name, labels, hardness):
        if hardness == "capped" and labels == LABELS["two of 128"]:
            pytest.skip("takes many minutes: a rule is asked for each of 16,256 pairs")
        assert peak(name, "all", labels, hardness) < 1024

    @pytest.mark.slow
    @pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
    @pytest.mark.parametrize("name", EVERY)
    def test_ring(self, name, labels):
        assert peak(name, "ring", labels) < 1024
