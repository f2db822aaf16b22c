"""Every input gives a finite loss, a documented error, or PML's own behaviour."""

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses
from pytorch_metric_learning.distances import (
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
)

from pml_symm import (
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmLoss,
    SymmMiner,
    SymmSynthesizer,
)

from .losses import LOSSES, capped

DISTANCES = {
    "Euclidean": LpDistance,
    "Euclidean, not normalized": lambda: LpDistance(normalize_embeddings=False),
    "squared": lambda: LpDistance(power=2),
    "city block": lambda: LpDistance(p=1),
    "cosine": CosineSimilarity,
    "dot product": lambda: DotProductSimilarity(normalize_embeddings=False),
}
WRAPPED = {
    "contrastive": losses.ContrastiveLoss,
    "multi-similarity": losses.MultiSimilarityLoss,
    "NT-Xent": losses.NTXentLoss,
    "margin": losses.MarginLoss,
}
ANGULAR_DISTANCES = ("Euclidean", "Euclidean, not normalized")
SCALES = (1e-45, 1e-38, 1e-30, 1e-18, 1e-4, 1.0, 1e4, 1e10, 1e18, 1e19, 1e30, 1e38)
LABELS = {
    "pairs": lambda n, random: torch.arange(n) // 2,
    "one class": lambda n, random: torch.zeros(n, dtype=torch.long),
    "singletons": lambda n, random: torch.arange(n),
    "few": lambda n, random: torch.randint(0, 3, (n,), generator=random),
    "ragged": lambda n, random: torch.randint(-2, n + 1, (n,), generator=random),
    "huge": lambda n, random: torch.randint(0, 2, (n,), generator=random) * (2**62),
}


@st.composite
def batches(draw):
    """Embeddings and labels of every kind."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, size = draw(st.integers(0, 12)), draw(st.integers(1, 9))
    dtype = draw(
        st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
    )
    labels = LABELS[draw(st.sampled_from(sorted(LABELS)))](n, random)
    labels = labels.to(draw(st.sampled_from([torch.int64, torch.int64, torch.int32])))
    points = torch.randn(n, size, generator=random, dtype=torch.float64)
    scale = draw(st.sampled_from(SCALES))
    points = points * scale
    kinds = ["as they are", "zeros", "a zero", "duplicates", "opposites", "two scales"]
    kind = draw(st.sampled_from(kinds))
    if n > 0:
        if kind == "zeros":
            points[:] = 0
        elif kind == "a zero":
            points[draw(st.integers(0, n - 1))] = 0
        elif kind == "duplicates":
            points[:] = points[0].clone()
        elif kind == "opposites":
            points[1::2] = -points[0]
        elif kind == "two scales":
            points[::2] *= draw(st.sampled_from((1e-20, 1e-6, 1e6)))
    points = points.to(dtype)
    broken = draw(st.sampled_from([None] * 6 + [torch.nan, torch.inf, -torch.inf]))
    if broken is not None and n > 0:
        points[draw(st.integers(0, n - 1)), draw(st.integers(0, size - 1))] = broken
    layout = draw(st.sampled_from(["contiguous", "transposed", "strided", "expanded"]))
    if layout == "transposed":
        points = points.t().contiguous().t()
    elif layout == "strided":
        points = torch.stack([points, points], dim=2)[:, :, 0]
    elif layout == "expanded" and n > 0:
        points = points[:1].expand(n, size)
    note(f"{kind}, {layout}, times {scale}: {points!r} of {labels.tolist()}")
    return points.requires_grad_(draw(st.booleans())), labels


@st.composite
def loss_functions(draw):
    """A Symm loss, and PML's own."""
    hardness = draw(st.sampled_from(["hardest", "hardest", "semihard", 2, 5, capped]))
    synthesizer = SymmSynthesizer(
        draw(st.sampled_from([2.0, 2.0, 1.5, 2.5])),
        draw(st.sampled_from([1.0, 1.0, 0.5, 1.5])),
        draw(st.sampled_from(["all", "ring", "none"])),
    )
    name = draw(st.sampled_from([*LOSSES, *WRAPPED]))
    if name in WRAPPED:
        distances = DISTANCES if name != "NT-Xent" else ("cosine", "dot product")
    else:
        distances = ANGULAR_DISTANCES if name == "angular" else DISTANCES
    distance = DISTANCES[draw(st.sampled_from(sorted(distances)))]
    note(f"{name}, {hardness}, {synthesizer}, {distance()}")
    if name in WRAPPED:
        make = WRAPPED[name]
        miner = SymmMiner(hardness, synthesizer, "pool", distance=distance())
        return SymmLoss(make(distance=distance()), miner), make(distance=distance())
    symm, make = LOSSES[name].symm, LOSSES[name].pml
    ours = symm(hardness=hardness, synthesizer=synthesizer, distance=distance())
    if name == "angular":
        return ours, make()  # PML's takes only its default distance
    return ours, make(distance=distance())


def is_finite(x):
    return bool(torch.isfinite(x).all())


def value_and_gradient(loss, embeddings, labels):
    """The loss, and the gradient if embeddings require one."""
    points = embeddings.detach().requires_grad_(embeddings.requires_grad)
    value = loss(points, labels)
    if points.requires_grad:
        value.backward()
    return value.detach(), points.grad


def are_finite(value, gradient):
    return is_finite(value) and (gradient is None or is_finite(gradient))


def check_is_missing(error):
    """Raise an error, unless it says that torch has no operator for half precision."""
    # Older versions of torch raise a plain RuntimeError.
    if "not implemented" not in str(error):
        raise error


def survives(loss, embeddings, labels):
    """Whether value, gradient and all distances are finite: no term was dropped."""
    try:
        found = value_and_gradient(loss, embeddings, labels)
        distances = loss.distance(embeddings.detach())
    except RuntimeError as error:
        check_is_missing(error)
        return False
    return are_finite(*found) and is_finite(distances)


def may_overflow(loss, embeddings):
    """Whether ours may overflow where PML's does not: at the ends of the floating range."""
    synthesizer = getattr(loss, "miner", loss).synthesizer
    is_mirrored = synthesizer.alpha == 2 and synthesizer.beta == 1
    if embeddings.dtype == torch.float16:
        # Ours may normalize points shorter than PML's, with larger gradients.
        return not is_mirrored
    squared_norms = embeddings.detach().double().square().sum(1)
    largest = torch.finfo(torch.promote_types(embeddings.dtype, torch.float32)).max
    if isinstance(loss, SymmAngularLoss) and not loss.distance.normalize_embeddings:
        # PML's does not take this distance.
        return bool(squared_norms.max() > largest / 1000)
    if isinstance(loss, SymmLiftedStructureLoss):
        squared_norms = squared_norms**2  # its terms are squared
    if squared_norms.max() < largest / 16:
        return False
    # Sums of dot products may overflow, and PML treats a point whose length overflows as
    # zero. Euclidean distances of mirror images overflow no earlier than PML's.
    sums = loss.distance.is_inverted
    return sums or not is_mirrored or bool((squared_norms > largest).any())


def check_loss(pair, batch):
    (ours, theirs), (embeddings, labels) = pair, batch
    before = embeddings.detach().clone()
    try:
        value, gradient = value_and_gradient(ours, embeddings, labels)
    except RuntimeError as error:
        check_is_missing(error)
        assert isinstance(ours, SymmLoss)
        assert not survives(theirs, embeddings, labels)
        return
    assert torch.equal(before.nan_to_num(), embeddings.detach().nan_to_num())
    if not is_finite(embeddings):
        # PML also returns a zero loss if there is nothing to compare.
        assert not is_finite(value) or value == 0
        return
    if not isinstance(ours, SymmLoss) and not are_finite(value, gradient):
        # Our losses compute in at least single precision: check that only the gradient
        # does not fit into half precision.
        dtype = torch.promote_types(embeddings.dtype, torch.float32)
        points = embeddings.detach().to(dtype)
        embeddings = points.requires_grad_(embeddings.requires_grad)
        value, gradient = value_and_gradient(ours, embeddings, labels)
    if not are_finite(value, gradient) and survives(theirs, embeddings, labels):
        assert may_overflow(ours, embeddings)


def check_miner(miner, batch):
    embeddings, labels = batch
    mined = miner(embeddings, labels)
    pool = miner.synthesizer(embeddings, labels)
    assert pool.embeddings.dtype == embeddings.dtype
    assert len(pool.embeddings) == len(pool.labels)
    limit = len(labels) if miner.index_space == "batch" else len(pool.labels)
    of_pool = pool.labels
    for index in mined:
        assert index.dtype == torch.long
        assert ((index >= 0) & (index < limit)).all()
    if len(mined) == 3:
        anchors, positives, negatives = mined
        assert (labels[anchors] == of_pool[positives]).all()
        assert (labels[anchors] != of_pool[negatives]).all()
        return
    anchors, positives, others, negatives = mined
    assert (labels[anchors] == of_pool[positives]).all()
    assert (labels[others] != of_pool[negatives]).all()


miners = st.builds(
    lambda hardness, space, distance: SymmMiner(
        hardness, index_space=space, distance=DISTANCES[distance]()
    ),
    st.sampled_from(["hardest", "semihard", 1, 3]),
    st.sampled_from(["batch", "pool"]),
    st.sampled_from(sorted(DISTANCES)),
)


@settings(max_examples=700)
@given(loss_functions(), batches())
def test_losses(pair, batch):
    check_loss(pair, batch)


@settings(max_examples=300)
@given(miners, batches())
def test_miner(miner, batch):
    check_miner(miner, batch)


@pytest.mark.slow
@settings(max_examples=15_000)
@given(loss_functions(), batches())
def test_losses_at_length(pair, batch):
    check_loss(pair, batch)


@pytest.mark.slow
@settings(max_examples=5_000)
@given(miners, batches())
def test_miner_at_length(miner, batch):
    check_miner(miner, batch)
