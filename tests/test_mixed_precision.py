"""Half precision, autocast and gradient scaling: what docs/reliability.md promises."""

import pytest
import torch
from pytorch_metric_learning import losses

from pml_symm import SymmLoss, SymmMiner

from .losses import FOUR

HALF = [torch.float16, torch.bfloat16]
SEEDS = range(10)


def batch(seed):
    torch.manual_seed(seed)
    return torch.randn(64, 32, dtype=torch.float64), torch.arange(32).repeat(2)


def value_and_gradient(loss, embeddings, labels, autocast=None):
    points = embeddings.detach().requires_grad_()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        value = loss(points, labels)
    value.backward()
    return value.detach().double(), points.grad.double()


def errors(make, dtype, autocast=None):
    """The largest relative errors of value and gradient, on the same rounded points."""
    of_values, of_gradients = [], []
    for seed in SEEDS:
        embeddings, labels = batch(seed)
        points = embeddings.to(dtype)
        exact, exact_gradient = value_and_gradient(make(), points.double(), labels)
        value, gradient = value_and_gradient(make(), points, labels, autocast)
        of_values.append(abs(value / exact - 1))
        difference = torch.linalg.norm(gradient - exact_gradient)
        of_gradients.append(difference / torch.linalg.norm(exact_gradient))
    return max(of_values), max(of_gradients)


@pytest.mark.parametrize("make", FOUR)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_four_losses_are_exact_to_single_precision(make, dtype):
    value, gradient = errors(make, dtype)
    assert value < 1e-6
    # The gradient is rounded once, to the dtype of the embeddings.
    assert gradient < max(1e-6, torch.finfo(dtype).eps / 2)


@pytest.mark.parametrize("make", FOUR)
@pytest.mark.parametrize("dtype", HALF)
def test_autocast_changes_nothing(make, dtype):
    assert errors(make, torch.float32, dtype) == errors(make, torch.float32)


@pytest.mark.parametrize("wrapped", [losses.MultiSimilarityLoss, losses.ContrastiveLoss])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("by_autocast", [False, True])
def test_symm_loss_is_as_exact_as_the_loss_in_it(wrapped, dtype, by_autocast):
    arguments = (torch.float32, dtype) if by_autocast else (dtype,)
    ours = errors(lambda: SymmLoss(wrapped()), *arguments)
    theirs = errors(wrapped, *arguments)
    assert all(x < 2 * y + 1e-6 for x, y in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", HALF)
def test_the_miner_mines_as_in_single_precision(dtype):
    for seed in SEEDS:
        embeddings, labels = batch(seed)
        points = embeddings.to(dtype)
        expected = SymmMiner()(points.float(), labels)
        with torch.autocast("cpu", dtype=dtype):
            mined = SymmMiner()(points, labels)
        assert all(map(torch.equal, mined, expected))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("make", [*FOUR, lambda: SymmLoss(losses.MultiSimilarityLoss())])
def test_training_with_a_gradient_scaler(make, dtype):
    torch.manual_seed(0)
    model = torch.nn.Linear(32, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss_func = make()
    points, labels = batch(0)
    points, found = points.float(), []
    for step in range(20):
        broken = step == 10
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            embeddings = model(points * (torch.inf if broken else 1))
            value = loss_func(embeddings, labels)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        # GradScaler skips a step that is not finite, and halves the scale.
        assert torch.equal(before, model.weight) == broken
        assert scaler.get_scale() == (512 if step >= 10 else 1024)
        if not broken:
            found.append(value.item())
    assert found[-1] < found[0]
