"""make_trainer: modules are on the device, each with its own learning rate."""

import pytest
import torch

from benchmarks.methods.methods import METHODS, Synthesis
from benchmarks.training.trainers import make_trainer


def trainer_of(name, trunk=None, **options):
    method = METHODS[name]
    loss, _ = method.make(Synthesis(), num_classes=2, embedding_size=2)
    return make_trainer(
        {
            "models": {
                "trunk": trunk or torch.nn.Linear(4, 3),
                "embedder": torch.nn.Linear(3, 2),
            },
            "batch_size": 2,
            "loss_funcs": {"metric_loss": loss},
            "dataset": [],
            "dataset_labels": [0, 0, 1, 1],
            "data_device": torch.device("meta"),
        },
        method,
        learning_rate=0.1,
        head_factor=10,
        **options,
    )


@pytest.mark.parametrize(
    "name", ["N-pairs", "Margin", "DAML + N-pairs", "HDML + N-pairs", "Proxy-anchor"]
)
def test_everything_is_on_the_device_and_optimized(name):
    trainer = trainer_of(name)
    modules = {**trainer.models, **trainer.loss_funcs}
    parameters = {id(x) for module in modules.values() for x in module.parameters()}
    optimized = {
        id(x): group["lr"]
        for optimizer in trainer.optimizers.values()
        for group in optimizer.param_groups
        for x in group["params"]
    }
    assert optimized.keys() == parameters
    own = {id(x): 0.1 for x in trainer.models["trunk"].parameters()}
    if name == "Proxy-anchor":
        own |= {id(x): 10 for x in trainer.loss_funcs["metric_loss"].parameters()}
    assert all(rate == pytest.approx(own.get(x, 1)) for x, rate in optimized.items())
    assert all(x.is_meta for module in modules.values() for x in module.parameters())


def test_weight_decay_reaches_all_but_batch_normalization():
    trunk = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    trainer = trainer_of("Proxy-anchor", trunk=trunk, weight_decay=0.005)
    modules = {**trainer.models, **trainer.loss_funcs}
    parameters = {id(x) for module in modules.values() for x in module.parameters()}
    decays = {
        id(x): group["weight_decay"]
        for optimizer in trainer.optimizers.values()
        for group in optimizer.param_groups
        for x in group["params"]
    }
    assert decays.keys() == parameters
    normalizing = {id(x) for x in trunk[1].parameters()}
    assert {x for x, decay in decays.items() if decay == 0} == normalizing
    assert {decays[x] for x in parameters - normalizing} == {0.005}
    # Added to the gradient, as in the released code, and not to the weights (AdamW).
    assert {type(x) for x in trainer.optimizers.values()} == {torch.optim.Adam}


def test_a_search_chooses_in_the_place_of_the_method():
    assert trainer_of("HDML + N-pairs").alpha == 1
    assert trainer_of("HDML + N-pairs", options={"alpha": 7}).alpha == 7
    weights = trainer_of("DAML + N-pairs", options={"generator_weight": 7}).loss_weights
    assert weights == {
        "metric_loss": 1,
        "synth_loss": 1,
        "g_adv_loss": 7,
        "g_hard_loss": 7,
        "g_reg_loss": 7,
    }
