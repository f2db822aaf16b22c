"""docs/compatibility.md, row by row, against the losses that PML exports."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

import pml_symm
from pml_symm import SymmLoss, SymmMiner, SymmNPairsLoss

CLASSES, SIZE = 4, 8
TABLE = {
    name: (miner, symm_loss)
    for name, miner, symm_loss in re.findall(
        r"^\| (\w+Loss) \| (.*?) \| (.*?) \|$",
        (Path(__file__).parents[1] / "docs" / "compatibility.md").read_text(),
        re.MULTILINE,
    )
}
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
        loss_func = make(name)  # it has learned from the first call
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


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "loss",
    [
        SymmLoss(losses.ContrastiveLoss()),
        SymmNPairsLoss(),
        pml_symm.SymmTripletMarginLoss(),
        pml_symm.SymmLiftedStructureLoss(),
        pml_symm.SymmAngularLoss(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_distributed_loss_wrapper_takes_it(loss):
    assert torch.equal(DistributedLossWrapper(loss)(*batch()), loss(*batch()))
