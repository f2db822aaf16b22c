"""A user's own rule as hardness; test_oracle.py has its values against plain loops."""

import pytest
import torch
from pytorch_metric_learning import losses
from torch.testing import assert_close

from pml_symm import SymmLoss, SymmMiner, SymmNPairsLoss, SymmSynthesizer
from pml_symm import functional as F

from .losses import RULES, capped, four, nothing

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])


def batch():
    return torch.randn(len(LABELS), 4, dtype=torch.float64, requires_grad=True), LABELS


def semihard(candidates):
    return candidates.score.masked_fill(candidates.score >= candidates.positive, -torch.inf)


@four
class TestLosses:
    def test_the_hardest_by_a_rule(self, symm_loss):
        x, labels = batch()
        found = symm_loss(hardness=lambda candidates: candidates.score)(x, labels)
        assert_close(found, symm_loss()(x, labels))

    def test_semihard_by_a_rule(self, symm_loss):
        x, labels = batch()
        found, expected = (
            symm_loss(hardness=hardness)(x, labels) for hardness in (semihard, "semihard")
        )
        assert torch.equal(found, expected)

    def test_originals_alone_by_a_rule(self, symm_loss):
        def originals(candidates):
            synthetic = candidates.row_synthetic | candidates.column_synthetic
            return candidates.score.masked_fill(synthetic, -torch.inf)

        x, labels = batch()
        found = symm_loss(hardness=originals, collect_stats=True)
        control = symm_loss(synthesizer=SymmSynthesizer(pairing="none"))
        assert_close(found(x, labels), control(x, labels))
        assert found.synthetic_ratio == 0

    def test_nothing_wins(self, symm_loss):
        x, labels = batch()
        value = symm_loss(hardness=nothing)(x, labels)
        value.backward()
        assert value == 0 and not x.grad.any()

    def test_nan_never_wins(self, symm_loss):
        def nan_instead(candidates):
            found = capped(candidates)
            return found.masked_fill(found == -torch.inf, torch.nan)

        x, labels = batch()
        expected = symm_loss(hardness=capped)(x, labels)
        assert torch.equal(symm_loss(hardness=nan_instead)(x, labels), expected)

    def test_a_capped_rule_is_easier(self, symm_loss):
        x, labels = batch()
        assert symm_loss(hardness=capped)(x, labels) < symm_loss()(x, labels)

    @pytest.mark.parametrize(
        "rule",
        [
            lambda candidates: candidates.score[:1],
            lambda candidates: candidates.score.flatten(),
            lambda candidates: candidates.score.amax(3, keepdim=True),
            lambda candidates: candidates.score < candidates.positive,
            lambda candidates: None,
        ],
        ids=["some rows", "flat", "no columns", "a mask", "nothing"],
    )
    def test_no_priorities(self, symm_loss, rule):
        with pytest.raises((TypeError, ValueError), match=r"hardness must return .*got "):
            symm_loss(hardness=rule)(*batch())


@pytest.mark.parametrize("name", RULES)
def test_triplets_of_the_miner_obey_the_rule(name):
    x, labels = batch()
    pool = F.synthesize(x, labels)
    anchor, positive, negative = F.mine(
        x, labels, hardness=RULES[name][0], index_space="pool"
    )
    points = torch.nn.functional.normalize(pool.embeddings, dim=1)
    similarity = points[:8] @ points.t()
    synthetic = negative >= len(x)
    if name == "nothing":
        assert len(anchor) == 0
    elif name == "easiest of mirrored":
        assert synthetic.all()
    else:
        harder = similarity[anchor, negative] >= similarity[anchor, positive]
        assert harder.any() and not (harder & synthetic).any()


def test_what_a_rule_sees():
    """Scores of two points each, in blocks of classes, and that without gradients."""
    x, labels = batch()
    seen = []

    def rule(candidates):
        assert not torch.is_grad_enabled() and not candidates.score.requires_grad
        seen.append(candidates)
        return candidates.score

    distance = F.DotProduct(normalize=False)
    F.triplet_margin_loss(x[:4], labels[:4], hardness=rule, distance=distance)
    (found,) = seen
    pool = F.synthesize(x[:4], labels[:4])
    scores = (pool.embeddings @ pool.embeddings.t()).detach()
    assert found.score.shape == (2, 4, 4, 2)
    for u, v in ((0, 0), (0, 1), (1, 1)):
        expected = scores[pool.labels == u][:, pool.labels == v]
        assert_close(
            found.score[u, :, :, v].flatten().sort().values,
            expected.flatten().sort().values,
        )
    positive = torch.stack([scores[0, 1], scores[2, 3]])
    assert_close(found.positive.flatten(), positive)
    for synthetic in (found.row_synthetic, found.column_synthetic):
        assert synthetic.expand_as(found.score).sum() == found.score.numel() / 2


def near_the_pair(candidates):
    """Semi-hard negatives at most 0.5 farther apart than the positive pair."""
    score, positive = candidates.score, candidates.positive
    is_near = (score < positive) & (score > positive - 0.5)
    return score.masked_fill(~is_near, -torch.inf)


def two_points_for_originals(candidates):
    synthetic = candidates.row_synthetic | candidates.column_synthetic
    return candidates.score - 2 * synthetic.to(candidates.score.dtype)


@pytest.mark.parametrize("rule", [near_the_pair, two_points_for_originals])
@pytest.mark.parametrize("power", [1, 2])
def test_scores_are_the_distances_own_values(rule, power):
    """Not in a unit that depends on the batch, or on how points are compared."""
    x, labels = batch()
    distance = F.Euclidean(normalize=False, power=power)
    by_function = F.ByFunction(lambda x, y: torch.cdist(x, y) ** power)
    for function in (F.triplet_margin_loss, F.lifted_structure_loss):
        found = function(x, labels, hardness=rule, distance=distance)
        expected = function(x, labels, hardness=rule, distance=by_function)
        assert_close(found, expected)
        assert found != function(x, labels, distance=distance)
    found, expected = (
        F.mine(x, labels, hardness=rule, distance=y) for y in (distance, by_function)
    )
    assert_close(found, expected)


@four
def test_a_rule_may_change_its_scores(symm_loss):
    def in_place(candidates):
        easier = candidates.score >= candidates.positive
        return candidates.score.masked_fill_(easier, -torch.inf)

    x, labels = batch()
    assert_close(
        symm_loss(hardness=in_place)(x, labels), symm_loss(hardness=semihard)(x, labels)
    )


def test_a_rule_may_change_the_positive_pairs_scores():
    def copying(candidates):
        limit = candidates.positive - 0.3
        return candidates.score.masked_fill(candidates.score >= limit, -torch.inf)

    def in_place(candidates):
        limit = candidates.positive
        limit -= 0.3
        return candidates.score.masked_fill(candidates.score >= limit, -torch.inf)

    x, labels = torch.randn(9, 5), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    for function in (F.mine, F.angular_loss, F.triplet_margin_loss):
        found, expected = (
            function(x, labels, hardness=rule, distance=F.DotProduct())
            for rule in (in_place, copying)
        )
        assert_close(found, expected)


@pytest.mark.parametrize("beta", [1.5, 1e3])
def test_originals_do_not_depend_on_beta(beta):
    def originals(candidates):
        synthetic = candidates.row_synthetic | candidates.column_synthetic
        return candidates.score.masked_fill(synthetic, -torch.inf)

    x, labels = batch()
    options = {"hardness": originals, "distance": F.DotProduct(normalize=False)}
    found, expected = (
        F.n_pairs_loss(x.float(), labels, synthesis=F.Synthesis(beta=y), **options)
        for y in (beta, 1.0)
    )
    assert_close(found, expected)


def test_every_positive_pair_is_asked():
    x, labels = batch()
    asked = []

    def rule(candidates):
        asked.append(candidates.positive.expand(candidates.score.shape)[:, 0, 0, 0])
        return candidates.score

    F.triplet_margin_loss(x, labels, hardness=rule, distance=F.DotProduct(False))
    found = set(torch.cat(asked).tolist())
    products = (x @ x.t()).detach()
    expected = [(0, 1), (2, 3), (4, 5), (4, 6), (5, 6)]
    for i, j in expected:
        assert any(value == pytest.approx(float(products[i, j])) for value in found)


def test_symm_loss_with_a_rule():
    x, labels = batch()
    found = SymmLoss(losses.TripletMarginLoss(), SymmMiner(semihard, index_space="pool"))(
        x, labels
    )
    expected = SymmLoss(
        losses.TripletMarginLoss(), SymmMiner("semihard", index_space="pool")
    )(x, labels)
    assert found == expected > 0


def test_the_released_code_knows_no_rules():
    with pytest.raises(ValueError, match="released code"):
        SymmNPairsLoss(candidates="official", hardness=capped)
