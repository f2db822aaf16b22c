"""Hardness-aware metric learning: where negatives move, and what each loss trains."""

import math

import pytest
import torch
from pytorch_metric_learning import losses

from benchmarks.methods import hdml
from benchmarks.methods.hdml import HardnessAwareMetricLearning, harder_negatives


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_negatives_move_towards_the_anchor(strength):
    anchors, positives, negatives = torch.randn(3, 50, 4, dtype=torch.float64)
    found = harder_negatives(anchors, positives, negatives, strength)
    to_positive = (positives - anchors).norm(dim=1)
    before, after = ((x - anchors).norm(dim=1) for x in (negatives, found))
    expected = torch.where(
        before > to_positive, strength * before + (1 - strength) * to_positive, before
    )
    torch.testing.assert_close(after, expected)
    # On the line from the anchor to the negative.
    torch.testing.assert_close(
        torch.cosine_similarity(found - anchors, negatives - anchors),
        torch.ones(50, dtype=torch.float64),
    )


def make_trainer(alpha=0.1):
    torch.manual_seed(0)
    labels = torch.tensor([5, 5, 9, 9, 2, 2, 7, 7])
    models = {
        "trunk": torch.nn.Linear(6, 5),
        "embedder": torch.nn.Linear(5, 3),
        "generator": torch.nn.Linear(3, 5),
        "classifier": torch.nn.Linear(5, 4),
    }
    return HardnessAwareMetricLearning(
        models=models,
        optimizers={
            f"{name}_optimizer": torch.optim.SGD(model.parameters(), lr=0.1)
            for name, model in models.items()
        },
        batch_size=8,
        loss_funcs={
            "metric_loss": losses.TripletMarginLoss(margin=0.5),
            "synth_loss": losses.TripletMarginLoss(margin=0.5),
            "classifier_loss": torch.nn.CrossEntropyLoss(),
        },
        dataset=list(zip(torch.randn(8, 6), labels, strict=True)),
        dataset_labels=labels.numpy(),
        set_min_label_to_zero=True,
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
        alpha=alpha,
    )


def gradients(trainer, name):
    for model in trainer.models.values():
        model.zero_grad()
    trainer.losses[name].backward(retain_graph=True)
    return {
        key: any(
            p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters()
        )
        for key, model in trainer.models.items()
    }


def test_each_term_trains_what_the_paper_says():
    trainer = make_trainer()
    trainer.train(num_epochs=1)
    trainer.epoch, trainer.iteration = 2, 0
    trainer.calculate_loss(trainer.get_batch())
    trained = {
        name: gradients(trainer, name) for name in trainer.losses if name != "total_loss"
    }
    only = {name: {key for key, yes in x.items() if yes} for name, x in trained.items()}
    assert only == {
        "metric_loss": {"trunk", "embedder"},
        "synth_loss": {"trunk", "embedder"},
        "reconstruction_loss": {"generator"},
        "label_loss": {"generator"},
        "classifier_loss": {"classifier"},
    }


def test_negatives_get_harder_as_the_loss_falls(monkeypatch):
    monkeypatch.setattr(hdml, "EPOCH", 2)
    trainer = make_trainer(alpha=0.1)
    assert trainer.strength == 1
    trainer.train(num_epochs=2)
    assert math.isfinite(trainer.last_average)
    before = trainer.strength
    trainer.last_average /= 2
    assert 0 < trainer.strength < before < 1
    trainer.last_average = 0
    assert trainer.strength == 0


def test_its_state_is_what_the_next_steps_depend_on(monkeypatch):
    monkeypatch.setattr(hdml, "EPOCH", 2)
    trainer, other = make_trainer(), make_trainer()
    trainer.train(num_epochs=2)
    other.load_state_dict(trainer.state_dict())
    assert other.strength == trainer.strength < 1
    assert other.state_dict() == trainer.state_dict() != make_trainer().state_dict()


def test_the_better_the_generator_the_heavier_the_synthetic_tuples():
    trainer = make_trainer()
    trainer.loss_funcs["metric_loss"] = lambda *_, **__: torch.tensor(2.0)
    trainer.loss_funcs["synth_loss"] = lambda *_, **__: torch.tensor(3.0)
    labels = torch.arange(4).repeat_interleave(2)
    trainer.calculate_loss((torch.randn(8, 6), labels))
    generator = trainer.losses["reconstruction_loss"] + trainer.losses["label_loss"]
    share = math.exp(-1 / generator.item())
    assert trainer.losses["metric_loss"].item() == pytest.approx(2 * share, rel=1e-5)
    assert trainer.losses["synth_loss"].item() == pytest.approx(3 * (1 - share), rel=1e-5)
