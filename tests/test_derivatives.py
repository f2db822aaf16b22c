"""Second derivatives, torch.func, and inference mode before training."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from lightning import LightningModule, Trainer
from pytorch_metric_learning import losses
from torch.testing import assert_close

from pml_symm import SymmLoss, SymmMiner, SymmSynthesizer
from pml_symm import functional as F
from pml_symm.functional import search

from .covering import covering
from .losses import FOUR, FUNCTIONS, capped

EVERY = {
    **{loss.__name__: loss for loss in FOUR},
    "SymmLoss": lambda: SymmLoss(losses.MultiSimilarityLoss()),
    "SymmMiner": lambda: Mined(losses.TripletMarginLoss(), SymmMiner()),
}
LABELS = {"pairs": [0, 1, 2, 0, 1, 2], "ragged": [0, 0, 1, 1, 2, 2, 2, 3]}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
four = pytest.mark.parametrize("make", FOUR)
functions = pytest.mark.parametrize("function", [*FUNCTIONS, F.mine, F.synthesize])
layouts = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)


def some(makes, hardnesses):
    """Every loss, and every hardness; test_oracle.py has the first derivatives of all."""
    cases = covering({"make": makes, "hardness": hardnesses}, strength=1)
    return pytest.mark.parametrize(("make", "hardness"), [tuple(x.values()) for x in cases])


class Mined(torch.nn.Module):
    """A PML loss with a miner."""

    def __init__(self, loss, miner):
        super().__init__()
        self.loss, self.miner = loss, miner

    def forward(self, embeddings, labels):
        return self.loss(embeddings, labels, self.miner(embeddings, labels))


def batch(labels):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
    return x, torch.tensor(labels)


def gradient(loss, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(loss(x), x)[0]


def central_difference(f, x, direction, step=1e-6):
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


@layouts
@four
class TestSecondDerivatives:
    def test_hessian(self, make, labels):
        x, labels = batch(labels)
        loss = make()
        hessian = torch.autograd.functional.hessian(lambda y: loss(y, labels), x)
        direction = torch.randn_like(x)
        expected = central_difference(
            lambda y: gradient(lambda z: loss(z, labels), y), x, direction
        )
        assert hessian.abs().max() > 0.1
        product = torch.einsum("idje,je->id", hessian, direction)
        assert_close(product, expected, rtol=1e-6, atol=1e-6)

    def test_gradient_penalty(self, make, labels):
        x, labels = batch(labels)
        loss = make()

        def penalized(y):
            value = loss(y, labels)
            (slope,) = torch.autograd.grad(value, y, create_graph=True)
            return value + slope.square().sum()

        direction = torch.randn_like(x)
        expected = central_difference(
            lambda y: penalized(y.requires_grad_()).detach(), x, direction
        )
        found = (gradient(penalized, x) * direction).sum()
        assert_close(found, expected, rtol=1e-6, atol=1e-6)

    def test_gradgradcheck(self, make, labels):
        x, labels = batch(labels)
        loss = make()
        assert torch.autograd.gradgradcheck(lambda y: loss(y, labels), x.requires_grad_())


@some(FOUR, [2, "semihard", capped])
def test_hessian_of_other_hardness(make, hardness):
    x, labels = batch(LABELS["ragged"])
    loss = make(hardness=hardness)
    assert torch.autograd.gradgradcheck(lambda y: loss(y, labels), x.requires_grad_())


@four
def test_meta_gradient(make):
    """Differentiate through one step of training, as MAML does."""
    labels = torch.tensor(LABELS["pairs"])
    loss = make()
    inputs = torch.randn(6, 4, dtype=torch.float64)

    def after_a_step(weight):
        value = loss(inputs @ weight, labels)
        (slope,) = torch.autograd.grad(value, weight, create_graph=True)
        return loss(inputs @ (weight - 0.1 * slope), labels)

    weight = torch.randn(4, 5, dtype=torch.float64)
    direction = torch.randn_like(weight)
    expected = central_difference(
        lambda w: after_a_step(w.requires_grad_()).detach(), weight, direction
    )
    assert_close(
        (gradient(after_a_step, weight) * direction).sum(), expected, rtol=1e-6, atol=1e-6
    )


class TestFunc:
    @layouts
    @every
    def test_grad(self, make, labels):
        x, labels = batch(labels)
        loss = make()
        found = torch.func.grad(lambda y: loss(y, labels))(x)
        assert_close(found, gradient(lambda y: loss(y, labels), x))
        assert found.abs().max() > 0

    @layouts
    @four
    def test_first_derivatives(self, make, labels):
        x, labels = batch(labels)
        loss, direction = make(), torch.randn_like(x)
        expected = gradient(lambda y: loss(y, labels), x)
        slope = (expected * direction).sum()

        def of(y):
            return loss(y, labels)

        value, found = torch.func.jvp(of, (x,), (direction,))
        assert_close((value, found), (loss(x, labels), slope))
        _, pull_back = torch.func.vjp(of, x)
        assert_close(pull_back(torch.ones_like(value))[0], expected)
        assert_close(torch.func.jacrev(of)(x), expected)
        assert_close(torch.func.jacfwd(of)(x), expected)
        with forward_ad.dual_level():
            dual = of(forward_ad.make_dual(x, direction))
            assert_close(forward_ad.unpack_dual(dual).tangent, slope)

    @layouts
    @four
    def test_second_derivatives(self, make, labels):
        x, labels = batch(labels)
        loss = make()

        def of(y):
            return loss(y, labels)

        expected = torch.autograd.functional.hessian(of, x)
        assert_close(torch.func.hessian(of)(x), expected)
        assert_close(torch.func.jacrev(torch.func.grad(of))(x), expected)
        assert_close(torch.func.jacfwd(torch.func.grad(of))(x), expected)

    @functions
    def test_vmap_is_refused(self, function):
        x, labels = batch(LABELS["pairs"])
        with pytest.raises(NotImplementedError, match="embeddings cannot be batched by"):
            torch.func.vmap(lambda y: function(y, labels))(x.expand(3, -1, -1))

    @every
    def test_vmap_of_a_class_is_refused(self, make):
        x, labels = batch(LABELS["pairs"])
        loss = make()
        with pytest.raises(NotImplementedError, match="embeddings cannot be batched by"):
            torch.func.vmap(lambda y: loss(y, labels))(x.expand(3, -1, -1))


@layouts
@four
class TestBatchedGradients:
    """Many gradients in one backward pass, by vmap."""

    def test_grads_batched(self, make, labels):
        x, labels = batch(labels)
        x, loss = x.requires_grad_(), make()
        (slope,) = torch.autograd.grad(loss(x, labels), x, create_graph=True)
        every = torch.eye(slope.numel(), dtype=x.dtype).view(-1, *slope.shape)
        (found,) = torch.autograd.grad(slope, x, every, is_grads_batched=True)
        expected = torch.autograd.functional.hessian(lambda y: loss(y, labels), x)
        assert_close(found.view_as(expected), expected)

    def test_vectorized(self, make, labels):
        x, labels = batch(labels)
        loss = make()

        def of(y):
            return loss(y, labels)

        plain, vectorized = (
            (
                torch.autograd.functional.jacobian(of, x, vectorize=vectorize),
                torch.autograd.functional.hessian(of, x, vectorize=vectorize),
            )
            for vectorize in (False, True)
        )
        assert_close(vectorized, plain)


@some(FOUR, ["hardest", 2, "semihard"])
class TestComputedAgain:
    """Winners that are computed again in the backward pass, as in large batches."""

    def test_derivatives(self, make, hardness, monkeypatch):
        x, labels = batch(LABELS["ragged"])
        loss = make(hardness=hardness)

        def of(y):
            return loss(y, labels)

        def derivatives():
            return (
                gradient(of, x),
                torch.autograd.functional.hessian(of, x),
                torch.func.jvp(of, (x,), (torch.ones_like(x),))[1],
            )

        expected = derivatives()
        monkeypatch.setattr(search, "_MOST_PRODUCTS", 1)
        monkeypatch.setattr(search, "_MOST_KEPT", 1)
        assert_close(derivatives(), expected)

    def test_func(self, make, hardness, monkeypatch):
        x, labels = batch(LABELS["ragged"])
        loss = make(hardness=hardness)

        def derivatives():
            slope = torch.func.grad(lambda y: loss(y, labels))
            return slope(x), torch.func.jacrev(slope)(x)

        expected = derivatives()
        monkeypatch.setattr(search, "_MOST_PRODUCTS", 1)
        monkeypatch.setattr(search, "_MOST_KEPT", 1)
        assert_close(derivatives(), expected)


class TestInferenceMode:
    @layouts
    @every
    def test_training_after_it(self, make, labels):
        x, labels = batch(labels)
        loss = make()
        with torch.inference_mode():
            value = loss(x, labels)
        assert_close(
            gradient(lambda y: loss(y, labels), x), gradient(lambda y: make()(y, labels), x)
        )
        assert_close(loss(x, labels), value)

    def test_synthesizer_after_it(self):
        x, labels = batch(LABELS["ragged"])
        synthesizer = SymmSynthesizer()
        with torch.inference_mode():
            synthesizer(x, labels)
        assert (
            gradient(lambda y: synthesizer(y, labels).embeddings.sum(), x).isfinite().all()
        )

    @every
    def test_lightning_validates_before_it_fits(self, make, tmp_path):
        class Embedder(LightningModule):
            def __init__(self):
                super().__init__()
                self.layer, self.loss = torch.nn.Linear(3, 4), make()

            def training_step(self, rows, _):
                return self.loss(self.layer(rows[0]), rows[1])

            def validation_step(self, rows, _):
                self.loss(self.layer(rows[0]), rows[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        x, labels = batch(LABELS["pairs"])
        data = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x.float(), labels), batch_size=6
        )
        model = Embedder()
        before = model.layer.weight.detach().clone()
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=tmp_path,
        )
        trainer.validate(model, data, verbose=False)
        trainer.fit(model, data)
        assert not torch.equal(model.layer.weight, before)
