"""docs/compatibility.md, row by row, against the losses and wrappers that PML has."""

import inspect
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning import losses, reducers
from pytorch_metric_learning.utils import distributed
from pytorch_metric_learning.utils.distributed import (
    DistributedLossWrapper,
    DistributedMinerWrapper,
)

import pml_symm
from pml_symm import (
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmSynthesizer,
    SymmTripletMarginLoss,
)

from . import oracle
from .losses import FOUR

CLASSES, SIZE = 4, 8
PAGE = (Path(__file__).parents[1] / "docs" / "compatibility.md").read_text()
ROWS = [
    [cell.strip() for cell in row[1:-1].split("|")]
    for row in re.findall(r"^\| [A-Z]\w+ \|.*\|$", PAGE, re.MULTILINE)
]
TABLE = {name: cells for name, *cells in ROWS if len(cells) == 2}
WRAPPERS = {name: cells for name, *cells in ROWS if len(cells) == 3}
ABSTRACT = {"BaseMetricLossFunction", "GenericPairLoss"}
EXPORTED = {
    name: loss
    for name, loss in vars(losses).items()
    if inspect.isclass(loss)
    and issubclass(loss, losses.BaseMetricLossFunction)
    and name not in ABSTRACT
}
OF_CLASSES = {"num_classes": CLASSES, "embedding_size": SIZE}
ARGUMENTS = {
    "ArcFaceLoss": OF_CLASSES,
    "CosFaceLoss": OF_CLASSES,
    "LargeMarginSoftmaxLoss": OF_CLASSES,
    "ManifoldLoss": {"l": SIZE},
    "NormalizedSoftmaxLoss": OF_CLASSES,
    "P2SGradLoss": {"num_classes": CLASSES, "descriptors_dim": SIZE},
    "ProxyAnchorLoss": OF_CLASSES,
    "ProxyNCALoss": OF_CLASSES,
    "RankedListLoss": {"margin": 0.4, "Tn": 1},
    "SoftTripleLoss": OF_CLASSES,
    "SphereFaceLoss": OF_CLASSES,
    "SubCenterArcFaceLoss": OF_CLASSES,
}


def make(name):
    return EXPORTED[name](**ARGUMENTS.get(name, {}))


def batch():
    torch.manual_seed(0)
    embeddings = torch.randn(3 * CLASSES, SIZE, requires_grad=True)
    return embeddings, torch.arange(CLASSES).repeat(3)


def test_the_table_has_every_loss_of_this_pml():
    assert set(EXPORTED) <= set(TABLE)


rows = pytest.mark.parametrize("name", sorted(EXPORTED))


@rows
def test_symm_miner(name):
    embeddings, labels = batch()
    indices = SymmMiner()(embeddings, labels)
    claim = TABLE[name][0]
    loss_func = make(name)
    if claim.startswith("no"):
        with pytest.raises(
            (ValueError, TypeError, AssertionError, IndexError, RuntimeError)
        ):
            loss_func(embeddings, labels, indices)
        return
    torch.manual_seed(1)  # some losses initialize their weights at the first call
    value = loss_func(embeddings, labels, indices)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(embeddings.grad).all()
    assert embeddings.grad.any()
    if name == "DynamicSoftMarginLoss":
        loss_func = make(name)  # the first call changed its state
    # Other negatives, or an uneven choice of samples, give another loss.
    first = tuple(x[:1] for x in indices)
    same = torch.equal(value.detach(), loss_func(embeddings, labels, first).detach())
    assert not same
    if claim == "only the positive pairs are used":
        no_negatives = (*indices[:2], indices[2][:1], indices[3][:1])
        assert torch.equal(value, loss_func(embeddings, labels, no_negatives))


@rows
def test_symm_loss(name):
    embeddings, labels = batch()
    claim = TABLE[name][1]
    if claim == "yes":
        value = SymmLoss(make(name))(embeddings, labels)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(embeddings.grad).all()
        assert embeddings.grad.any()
        pool = pml_symm.SymmSynthesizer()(embeddings, labels)
        miner = SymmMiner(index_space="pool", distance=make(name).distance)
        indices = miner(embeddings, labels)
        assert (indices[3] >= len(embeddings)).any()
        expected = make(name)(embeddings, labels, indices, pool.embeddings, pool.labels)
        assert torch.equal(value, expected)
        return
    with pytest.raises(TypeError, match=f"SymmLoss cannot serve {name}; use") as error:
        SymmLoss(make(name))
    instead = re.search(r"`(\w+)`", claim)
    assert instead is None or instead[1] in str(error.value)


class TestOtherArguments:
    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            (lambda: torch.nn.CrossEntropyLoss(), "BaseMetricLossFunction, got CrossEnt"),
            (lambda: SymmNPairsLoss(), "cannot wrap SymmNPairsLoss, which synthesizes"),
            (lambda: SymmLoss(losses.ContrastiveLoss()), "SymmLoss cannot wrap SymmLoss"),
            (
                lambda: losses.MultipleLosses([losses.ContrastiveLoss()]),
                "MultipleLosses of",
            ),
            (lambda: losses.CrossBatchMemory(losses.ContrastiveLoss(), 8), "miner=SymmM"),
            (lambda: "triplet", "got str"),
        ],
    )
    def test_not_a_loss_to_wrap(self, argument, message):
        with pytest.raises(TypeError, match=message):
            SymmLoss(argument())

    def test_miner(self):
        loss = losses.ContrastiveLoss()
        with pytest.raises(TypeError, match="miner must be a SymmMiner, got str"):
            SymmLoss(loss, "hardest")
        with pytest.raises(ValueError, match=r"index_space=\"pool\".* got .*'batch'"):
            SymmLoss(loss, SymmMiner())
        hardest, third = SymmLoss(loss), SymmLoss(loss, SymmMiner(3, index_space="pool"))
        assert hardest(*batch()) > third(*batch())

    def test_the_miner_sees_the_points_of_the_loss(self):
        """Also of a synthesizer that makes other points each time."""

        class Random(SymmSynthesizer):
            def forward(self, *inputs):
                pool = super().forward(*inputs)
                return pools.append(pool) or pool

            def source_and_axis(self, labels, indices_tuple=None):
                source, axis = super().source_and_axis(labels, indices_tuple)
                kept = torch.rand(len(source)) < 0.5
                return source[kept], axis[kept]

        pools = []
        miner = SymmMiner(index_space="pool", synthesizer=Random())
        loss = losses.ContrastiveLoss()
        embeddings, labels = torch.randn(8, 4), torch.arange(8) // 2
        found = SymmLoss(loss, miner)(embeddings, labels)
        (pool,) = pools
        reference = miner.mine(embeddings, labels, embeddings, labels, pool=pool)
        assert found == loss(embeddings, labels, reference, pool.embeddings, pool.labels)
        distance = loss.distance(embeddings, pool.embeddings)
        *_, anchor, negative = reference
        same = labels.unsqueeze(1) == pool.labels
        nearest = distance.masked_fill(same, torch.inf).amin(1)
        hardest = torch.full_like(nearest, torch.inf)
        hardest = hardest.scatter_reduce(0, anchor, distance[anchor, negative], "amin")
        assert torch.equal(hardest, nearest)

    def test_own_loss_is_taken_on_trust(self):
        class Own(losses.ContrastiveLoss):
            pass

        assert torch.equal(
            SymmLoss(Own())(*batch()), SymmLoss(losses.ContrastiveLoss())(*batch())
        )

    def test_reference(self):
        embeddings, labels = batch()
        reference, ref_labels = torch.randn(9, SIZE), torch.arange(3).repeat(3)
        value = SymmLoss(losses.TripletMarginLoss())(
            embeddings, labels, ref_emb=reference, ref_labels=ref_labels
        )
        pool = pml_symm.SymmSynthesizer()(reference, ref_labels)
        indices = SymmMiner(index_space="pool")(embeddings, labels, reference, ref_labels)
        expected = losses.TripletMarginLoss()(
            embeddings, labels, indices, pool.embeddings, pool.labels
        )
        assert torch.equal(value, expected)

    def test_indices_tuple_selects_the_positive_pairs(self):
        embeddings, labels = batch()
        pair = torch.tensor([0]), torch.tensor([4])
        chosen = SymmLoss(losses.TripletMarginLoss())(embeddings, labels, (*pair, *pair))
        a1, _, a2, n = SymmMiner(index_space="pool")(embeddings, labels)
        assert len(a1) > 1
        pool = pml_symm.SymmSynthesizer()(embeddings, labels)
        expected = losses.TripletMarginLoss()(
            embeddings, labels, (*pair, a2, n), pool.embeddings, pool.labels
        )
        assert torch.equal(chosen, expected)

    def test_reducer_distance_and_regularizer_are_the_wrapped_loss_s(self):
        wrapped = losses.ContrastiveLoss()
        loss = SymmLoss(wrapped)
        assert loss.reducer is wrapped.reducer
        assert loss.distance is wrapped.distance is loss.miner.distance


def wrapped(loss=None, miner=None):
    """The combination in a row of the table, as a function of a batch."""
    plain = loss or losses.ContrastiveLoss()
    return {
        "CrossBatchMemory": lambda: losses.CrossBatchMemory(plain, SIZE, 64, miner),
        "DistributedLossWrapper": lambda: DistributedLossWrapper(plain),
        "DistributedMinerWrapper": lambda: DistributedMinerWrapper(miner or loss),
        "MultipleLosses": lambda: losses.MultipleLosses([plain], miner and [miner]),
        "SelfSupervisedLoss": lambda: losses.SelfSupervisedLoss(plain),
    }


def test_the_table_has_every_wrapper_of_this_pml():
    found = {
        name
        for module in (losses, distributed)
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, torch.nn.Module)
        and not issubclass(value, losses.BaseMetricLossFunction)
        and name not in ("BaseLossWrapper", "BaseMiner")
    }
    assert found == set(WRAPPERS) == set(wrapped())


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("name", sorted(WRAPPERS))
class TestWrappers:
    def test_miner(self, name):
        claim = WRAPPERS[name][0]
        miner, (embeddings, labels) = SymmMiner(), batch()
        mined = miner(embeddings, labels)
        wrapper = wrapped(miner=miner)[name]()
        if claim.startswith("no"):
            with pytest.raises(TypeError):
                wrapper(embeddings, labels, mined)
        elif name == "DistributedMinerWrapper":
            same = map(torch.equal, wrapper(embeddings, labels), mined)
            assert all(same)
        else:
            given = (mined,) if name == "DistributedLossWrapper" else ()
            value = wrapper(embeddings, labels, *given)
            assert value == losses.ContrastiveLoss()(embeddings, labels, mined)
            value.backward()
            assert embeddings.grad.any()

    @pytest.mark.parametrize(
        "make",
        [*FOUR, lambda: SymmLoss(losses.ContrastiveLoss())],
        ids=[*(loss.__name__ for loss in FOUR), "SymmLoss"],
    )
    def test_losses(self, name, make):
        loss = make()
        claim = WRAPPERS[name][2 if isinstance(loss, SymmLoss) else 1]
        make_wrapper = wrapped(loss)[name]
        if claim == "yes":
            assert make_wrapper()(*batch()) == loss(*batch())
        elif claim == "no":
            message = f"{name} not supported for {type(loss).__name__}"
            with pytest.raises(Exception, match=message):
                make_wrapper()
        else:
            with pytest.raises(TypeError, match="must extend BaseMiner"):
                make_wrapper()


class TestPerAnchorReducer:
    """The losses that it works with are in test_symm_losses.py."""

    @pytest.mark.parametrize("make", [losses.TripletMarginLoss, SymmTripletMarginLoss])
    def test_it_refuses_triplets(self, make):
        with pytest.raises(NotImplementedError, match="Triplet reduction not supported"):
            make(reducer=reducers.PerAnchorReducer())(*batch())

    def test_it_takes_a_value_of_each_sample(self):
        one, other = (
            SymmLoss(losses.MultiSimilarityLoss(reducer=make()))(*batch())
            for make in (reducers.PerAnchorReducer, reducers.MeanReducer)
        )
        assert one == other

    def test_it_takes_no_pairs_with_negatives_of_a_pool(self):
        make = partial(losses.ContrastiveLoss, reducer=reducers.PerAnchorReducer())
        assert make()(*batch()) > 0
        with pytest.raises(IndexError, match="out of bounds"):
            SymmLoss(make())(*batch())


class TestTwoViews:
    """The recipe: one batch of both views, with the labels twice."""

    @staticmethod
    def views():
        first = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
        second = (first + 0.1 * torch.randn(5, 4)).detach().requires_grad_()
        samples = torch.arange(5)
        return first, second, torch.cat([first, second]), torch.cat([samples, samples])

    @pytest.mark.skipif(
        "symmetric" not in inspect.signature(losses.SelfSupervisedLoss).parameters,
        reason="PML before 2.2 takes the second view as reference only",
    )
    def test_pml_s_wrapper_computes_that(self):
        first, second, both, labels = self.views()
        for loss in (losses.TripletMarginLoss(), losses.NTXentLoss()):
            wrapper = losses.SelfSupervisedLoss(loss)
            assert wrapper(first, second) == loss(both, labels)

    @pytest.mark.parametrize(
        ("loss", "expected"),
        [
            (SymmNPairsLoss(), oracle.n_pairs),
            (SymmTripletMarginLoss(margin=1), partial(oracle.triplet, margin=1)),
            (pml_symm.SymmLiftedStructureLoss(), oracle.lifted),
            (pml_symm.SymmAngularLoss(), oracle.angular),
        ],
        ids=[loss.__name__ for loss in FOUR],
    )
    def test_losses(self, loss, expected):
        first, second, both, labels = self.views()
        is_dot = isinstance(loss, SymmNPairsLoss)
        metric = oracle.Metric("dot" if is_dot else "euclidean", normalize=True)
        value, wanted = loss(both, labels), expected(both, labels, metric)
        torch.testing.assert_close(value, wanted)
        found, wanted = (torch.autograd.grad(x, (first, second)) for x in (value, wanted))
        assert all(gradient.any() for gradient in found)
        torch.testing.assert_close(found, wanted)
