"""Trainers: modules on the device, with own learning rates; samplers of hard classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses
from torch.nn.parallel import DistributedDataParallel

from benchmarks.methods.methods import METHODS
from benchmarks.training import processes, trainers
from benchmarks.training.settings import Settings
from benchmarks.training.trainers import HardClassSampler, StepTimer, make_trainer
from pml_symm import SymmMiner


def trainer_of(name, trunk=None, **options):
    settings = Settings(name, 0, learning_rate=0.1, head_factor=10, **options)
    loss, _ = METHODS[name].make(settings, num_classes=2, embedding_size=2)
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
        settings,
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
    assert trainer_of("HDML + N-pairs", trainer_options={"alpha": 7}).alpha == 7
    trainer = trainer_of("DAML + N-pairs", trainer_options={"generator_weight": 7})
    assert trainer.loss_weights == {
        "metric_loss": 1,
        "synth_loss": 1,
        "g_adv_loss": 7,
        "g_hard_loss": 7,
        "g_reg_loss": 7,
    }


# Twelve classes of four images, in three clusters of four classes.
LABELS = np.arange(12).repeat(4)


def embeddings():
    generator = torch.Generator().manual_seed(0)
    clusters = torch.eye(3).repeat_interleave(4, dim=0)
    noise = 0.01 * torch.randn(48, 3, generator=generator)
    return clusters.repeat_interleave(4, dim=0) + noise


def batches(sampler, batch_size):
    rows = np.array(list(sampler))
    return rows.reshape(-1, batch_size)


def test_batches_are_balanced_before_and_after():
    sampler = HardClassSampler(LABELS, m=2, batch_size=16, length_before_new_iter=80)
    for _ in range(2):
        found = batches(sampler, 16)
        assert found.shape == (len(sampler) // 16, 16) == (5, 16)
        for batch in found:
            _, counts = np.unique(LABELS[batch], return_counts=True)
            assert counts.tolist() == [2] * 8
        sampler.refresh(embeddings())


def test_confused_classes_are_sampled_together():
    sampler = HardClassSampler(LABELS, m=2, batch_size=8, length_before_new_iter=400)
    sampler.refresh(embeddings())
    for batch in batches(sampler, 8):
        assert len(set(LABELS[batch] // 4)) == 1


def test_confused_images_are_sampled():
    points = embeddings()
    # Two images of class 1 look like class 0, the others are far from it.
    points[4:6] = torch.tensor([1.0, 0.0, 0.0])
    points[6:8] = torch.tensor([1.0, 0.4, 0.0])
    sampler = HardClassSampler(LABELS, 2, 4, length_before_new_iter=400)
    sampler.refresh(points)
    for batch in batches(sampler, 4):
        if LABELS[batch[0]] == 0 and LABELS[batch[2]] == 1:
            assert set(batch[2:].tolist()) == {4, 5}


def test_all_rates_are_halved():
    trainer = trainer_of("DAML + N-pairs", lr_step_size=2)
    trainer.losses["total_loss"] = torch.zeros(())
    rates = {x: x.param_groups[0]["lr"] for x in trainer.optimizers.values()}
    for step in range(1, 5):
        for optimizer in rates:
            optimizer.step()
        trainer.step_lr_schedulers(end_of_epoch=False)
        for optimizer, rate in rates.items():
            halved = pytest.approx(rate * 0.5 ** (step // 2))
            assert optimizer.param_groups[0]["lr"] == halved


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_have_parts_of_the_same_batches(world_size, monkeypatch):
    monkeypatch.setattr(processes, "world_size", lambda: world_size)
    monkeypatch.setattr(processes, "from_first", lambda make: make())
    size, parts = 8 // world_size, []
    for rank in range(world_size):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        part = processes.OwnPart(range(24), 8)
        rows = list(part)
        assert len(rows) == len(part)
        parts.append([rows[i : i + size] for i in range(0, len(rows), size)])
    for number in range(3):
        together = [row for part in parts for row in part[number]]
        assert sorted(together) == list(range(8 * number, 8 * number + 8))


def parts_of(loss, miner, **models):
    return {
        "models": models,
        "loss_funcs": {"metric_loss": loss},
        "mining_funcs": {"tuple_miner": miner},
        "sampler": range(16),
        "batch_size": 8,
    }


@pytest.mark.usefixtures("process_group")
def test_a_process_compares_its_points_with_those_of_all(monkeypatch):
    own, other = torch.randn(2, 4, 3)
    labels, of_other = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 2, 0, 0])

    def all_gather(gathered, x):
        gathered[1].copy_(other if x.is_floating_point() else of_other)

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    loss, miner = losses.TripletMarginLoss(), SymmMiner()
    shared = processes.share(parts_of(loss, miner, trunk=torch.nn.Identity()))
    joined = torch.cat([own, other]), torch.cat([labels, of_other])
    # The mean of both processes' gradients is then that of the joined batch.
    found = shared["loss_funcs"]["metric_loss"](own, labels)
    torch.testing.assert_close(found, 2 * loss(*joined))
    mined = shared["mining_funcs"]["tuple_miner"](own, labels)
    assert all(map(torch.equal, mined, miner(*joined)))
    assert shared["batch_size"] == 4


@pytest.mark.usefixtures("process_group")
def test_models_that_train_share_their_gradients():
    trunk, frozen = torch.nn.Linear(2, 2), torch.nn.Identity()
    parts = parts_of(losses.TripletMarginLoss(), SymmMiner(), trunk=trunk, stem=frozen)
    models = processes.share(parts)["models"]
    assert isinstance(models["trunk"], DistributedDataParallel)
    assert models["trunk"].module is trunk
    assert models["stem"] is frozen


def test_the_time_of_a_step_is_without_its_hook(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    time = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(trainers, "time", time)

    def hook(trainer):
        clock.now += 1000

    timer = StepTimer(hook)
    for iteration, seconds in ((0, 1), (1, 2), (2, 4), (0, 8), (1, 16)):
        clock.now += seconds
        timer(SimpleNamespace(is_repeating=False, iteration=iteration))
    # Without the first step of an epoch.
    assert timer.seconds == [2, 4, 16]
