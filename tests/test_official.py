"""candidates="official" against the outputs of the authors' released code.

tests/data/official_symm.npz holds what their TensorFlow losses returned, in float32:
losses are compared to 1e-5 relative, gradients to 1e-4 of their largest entry.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import DotProductSimilarity, LpDistance
from pytorch_metric_learning.losses import AngularLoss

from pml_symm import SymmAngularLoss, SymmNPairsLoss, SymmSynthesizer
from pml_symm.official import four_points, n_pairs

GOLDEN = np.load(Path(__file__).parent / "data" / "official_symm.npz")
CASES = ["small", "unequal_norms", "paper_batch", "alpha_1_5", "beta_0_5"]


class Case:
    def __init__(self, name):
        self.name = name
        self.anchor = torch.from_numpy(GOLDEN[f"{name}/anchor"]).requires_grad_()
        self.positive = torch.from_numpy(GOLDEN[f"{name}/positive"]).requires_grad_()
        alpha, beta, self.degree = GOLDEN[f"{name}/params"].tolist()
        self.synthesizer = SymmSynthesizer(alpha=alpha, beta=beta)
        self.classes = torch.arange(len(self.anchor))

    def batch(self):
        return torch.cat([self.anchor, self.positive]), self.classes.repeat(2)

    def check(self, loss, key):
        expected = float(GOLDEN[f"{self.name}/{key}/loss"])
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        loss.backward()
        for side in ("anchor", "positive"):
            gradient = GOLDEN[f"{self.name}/{key}/grad_{side}"]
            np.testing.assert_allclose(
                getattr(self, side).grad.numpy(),
                gradient,
                rtol=0,
                atol=1e-4 * np.abs(gradient).max(),
            )


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_symm_npair(case):
    loss = SymmNPairsLoss(
        candidates="official",
        synthesizer=case.synthesizer,
        distance=DotProductSimilarity(normalize_embeddings=False),
    )
    case.check(loss(*case.batch()), "symm_npair")


def test_symm_npair_argmax(case):
    kinds = four_points(case.anchor, case.positive, case.synthesizer.reflect)
    candidates = n_pairs(kinds, DotProductSimilarity(normalize_embeddings=False)).candidates
    best, second = candidates.topk(2, dim=-1).values.unbind(-1)
    clear = (best - second).abs() > 1e-5 * best.abs()
    expected = torch.from_numpy(GOLDEN[f"{case.name}/symm_npair/argmax"]).long()
    assert clear.float().mean() > 0.7  # most entries have no tie
    assert torch.equal(candidates.argmax(-1)[clear], expected[clear])


def test_symm_angular(case):
    loss = SymmAngularLoss(
        alpha=case.degree,
        candidates="official",
        synthesizer=case.synthesizer,
        distance=LpDistance(normalize_embeddings=False),
    )
    case.check(loss(*case.batch()), "symm_angular")


def test_angular_without_synthesis_is_the_form_of_pml(case):
    """The released angular loss is PML's without normalization; positives are negatives."""
    loss = AngularLoss(alpha=case.degree)
    # PML's loss normalizes the pair even with normalize_embeddings=False.
    loss.distance.normalize = lambda x: x
    value = loss(
        case.anchor, case.classes, ref_emb=case.positive, ref_labels=case.classes.clone()
    )
    case.check(value, "angular")
