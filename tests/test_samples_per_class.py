"""Batches that are promised to be balanced: no wait for the device, and compilation."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pml_symm
from pml_symm.functional import loss, points
from pml_symm.functional.class_groups import class_groups

from .losses import FOUR, FUNCTIONS, functions

# Operators that make the host wait for a GPU, because a shape or a number depends on it.
WAITS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave",
    "aten::is_nonzero",
    "aten::equal",
}


# In versions 2.3 to 2.10, the compiler does not support properties of named tuples.
compiles = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="torch 2.13 is the oldest tried version that compiles the losses",
)


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        assert name not in WAITS, name
        if name in ("aten::index.Tensor", "aten::index"):
            assert all(x is None or x.dtype != torch.bool for x in args[1])
        return func(*args, **(kwargs or {}))


def batch(m):
    labels = torch.tensor([9, 4, -1, 2**40]).repeat(m)[torch.randperm(4 * m)]
    return torch.randn(4 * m, 6, dtype=torch.float64, requires_grad=True), labels


def value_and_gradient(loss_func, embeddings, labels):
    loss = loss_func(embeddings, labels)
    return loss, *torch.autograd.grad(loss, embeddings)


@pytest.mark.parametrize("hardness", ["hardest", "semihard"])
@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("make", FOUR)
def test_same_loss(make, m, hardness):
    embeddings, labels = batch(m)
    torch.testing.assert_close(
        value_and_gradient(
            make(samples_per_class=m, hardness=hardness), embeddings, labels
        ),
        value_and_gradient(make(hardness=hardness), embeddings, labels),
    )


@pytest.mark.parametrize("make", FOUR)
def test_the_loss_never_waits(make, monkeypatch):
    embeddings, labels = batch(2)
    loss_func = make(samples_per_class=2)
    # On a CPU the promise and the lengths are checked, because that needs no wait.
    monkeypatch.setattr(loss, "promise_kept", lambda labels, samples_per_class: None)
    monkeypatch.setattr(points, "_all_of_length_one", lambda squared: False)
    value_and_gradient(loss_func, embeddings, labels)  # makes the tables
    with NoWaiting():
        value_and_gradient(loss_func, embeddings, labels)


@compiles
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("make", FOUR)
def test_compiles_as_one_graph(make):
    embeddings, labels = batch(2)
    loss_func = make(samples_per_class=2)
    torch.compiler.reset()
    compiled = torch.compile(loss_func, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        value_and_gradient(compiled, embeddings, labels),
        value_and_gradient(loss_func, embeddings, labels),
    )
    # Compiled code gives NaN for a broken promise.
    labels[labels == 9] = 4
    assert compiled(embeddings, labels).isnan()


# Their formulas are those of the classes.
@compiles
@pytest.mark.parametrize("function", [FUNCTIONS[0], FUNCTIONS[-1]])
def test_a_function_compiles_as_one_graph(function):
    embeddings, labels = batch(2)

    def loss_func(x, y):
        return function(x, y, samples_per_class=2)

    torch.compiler.reset()
    compiled = torch.compile(loss_func, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        value_and_gradient(compiled, embeddings, labels),
        value_and_gradient(loss_func, embeddings, labels),
    )


@pytest.mark.parametrize("make", FOUR)
def test_broken_promises_are_errors(make):
    embeddings, labels = batch(3)
    with pytest.raises(ValueError, match="samples_per_class=5 times, got 12 labels"):
        make(samples_per_class=5)(embeddings, labels)
    with pytest.raises(ValueError, match=r"samples_per_class=2 times, got counts \[3\]"):
        make(samples_per_class=2)(embeddings, labels)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "two"])
def test_not_a_number_of_samples(value):
    with pytest.raises(ValueError, match="samples_per_class must be None or an int >= 1"):
        pml_symm.SymmNPairsLoss(samples_per_class=value)


@pytest.mark.parametrize("is_compiling", [False, True])
@functions
def test_an_empty_batch_keeps_the_promise(function, is_compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: is_compiling)
    embeddings = torch.randn(0, 4, requires_grad=True)
    loss = function(embeddings, torch.zeros(0, dtype=torch.long), samples_per_class=2)
    loss.backward()
    assert loss == 0


def test_layouts_agree():
    _, labels = batch(3)
    assert torch.equal(class_groups(labels, 3).groups[0], class_groups(labels).groups[0])


@pytest.mark.parametrize("name", ["TripletMargin", "LiftedStructure", "Angular"])
def test_with_a_reference_the_promise_is_about_its_labels(name):
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(4, 5, generator=generator), torch.tensor([0, 0, 0, 1])
    reference, of_reference = (
        torch.randn(6, 5, generator=generator),
        torch.arange(3).repeat(2),
    )
    make = getattr(pml_symm, f"Symm{name}Loss")
    inputs = embeddings, labels, None, reference, of_reference
    torch.testing.assert_close(make(samples_per_class=2)(*inputs), make()(*inputs))
    with pytest.raises(ValueError, match="samples_per_class=2"):
        make(samples_per_class=2)(reference, of_reference, None, embeddings, labels)
