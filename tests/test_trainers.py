"""The three ways in, inside PML's trainer, with its HookContainer and record-keeper."""

import logging

import pytest
import torch
from pytorch_metric_learning import losses, miners, trainers
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.utils import logging_presets
from pytorch_metric_learning.utils.distributed import DistributedMinerWrapper
from torch.utils.data import Dataset

from pml_symm import (
    AccuracyCalculator,
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmTripletMarginLoss,
)

CPU = torch.device("cpu")
CLASSES, MEMBERS, SIZE = 8, 10, 16


class Points(Dataset):
    """Classes that differ in four dimensions; twelve more dimensions are noise."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(CLASSES).repeat_interleave(MEMBERS)
        self.points = 2 * torch.randn(len(self.labels), SIZE, generator=generator)
        centres = torch.randn(CLASSES, 4, generator=generator)
        noise = torch.randn(len(self.labels), 4, generator=generator)
        self.points[:, :4] = 2 * centres[self.labels] + 0.3 * noise

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.points[index], int(self.labels[index])


def accuracy(model):
    calculator = AccuracyCalculator(include=("mean_average_precision_at_r",), device=CPU)
    dataset = Points()
    embeddings = torch.nn.functional.normalize(model(dataset.points))
    found = calculator.get_accuracy(embeddings, dataset.labels)
    return found["mean_average_precision_at_r"]


def projection():
    torch.manual_seed(0)
    return torch.nn.Linear(SIZE, 8)


def train(loss, mining_funcs=None, hooks=None, folder=None, epochs=3):
    dataset = Points()
    model = projection()
    extra = {}
    if hooks is not None:
        tester = GlobalEmbeddingSpaceTester(
            end_of_testing_hook=hooks.end_of_testing_hook,
            data_device=CPU,
            dataloader_num_workers=0,
            accuracy_calculator=AccuracyCalculator(
                include=("recall_at_1", "recall_at_4"), device=CPU
            ),
        )
        extra = {
            "end_of_iteration_hook": hooks.end_of_iteration_hook,
            "end_of_epoch_hook": hooks.end_of_epoch_hook(
                tester, {"val": dataset}, str(folder / "models")
            ),
        }
    trainer = trainers.MetricLossOnly(
        {"trunk": model},
        {"trunk_optimizer": torch.optim.Adam(model.parameters(), lr=0.02)},
        16,
        {"metric_loss": loss},
        dataset,
        mining_funcs=mining_funcs,
        sampler=MPerClassSampler(
            dataset.labels, m=2, batch_size=16, length_before_new_iter=160
        ),
        iterations_per_epoch=10,
        data_device=CPU,
        dataloader_num_workers=0,
        **extra,
    )
    trainer.train(num_epochs=epochs)
    return model


@pytest.mark.parametrize(
    ("loss", "mining_funcs"),
    [
        (losses.MultiSimilarityLoss(), {"tuple_miner": SymmMiner()}),
        (losses.TripletMarginLoss(), {"tuple_miner": SymmMiner(hardness="semihard")}),
        (SymmLoss(losses.MultiSimilarityLoss()), None),
        # Another miner selects the positive pairs.
        (
            SymmLoss(losses.ContrastiveLoss()),
            {"tuple_miner": miners.MultiSimilarityMiner()},
        ),
        (SymmNPairsLoss(), None),
        (SymmTripletMarginLoss(), {"tuple_miner": miners.BatchHardMiner()}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_metric_loss_only_trains(loss, mining_funcs):
    before = accuracy(projection())
    after = accuracy(train(loss, mining_funcs))
    assert after > before + 0.5


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("miner", [SymmMiner, miners.PairMarginMiner])
def test_a_distributed_miner_is_recorded_from_inside_its_wrapper(miner, tmp_path):
    wrapper = DistributedMinerWrapper(miner(collect_stats=True))
    wrapper(torch.randn(8, 4), torch.arange(4).repeat(2))
    record_keeper, *_ = logging_presets.get_record_keeper(str(tmp_path))
    # As HookContainer does; the FAQ explains it.
    record_keeper.update_records({"tuple_miner": wrapper}, 1)
    assert not record_keeper.record_writer.records
    record_keeper.update_records({"tuple_miner": wrapper.miner}, 1)
    (records,) = record_keeper.record_writer.records.values()
    assert records["num_pos_pairs"] == {1: 8}
    if miner is SymmMiner:
        assert records["synthetic_ratio"] == {1: wrapper.miner.synthetic_ratio}
        assert wrapper.miner.synthetic_ratio > 0


@pytest.mark.parametrize(
    ("loss", "mining_funcs", "table"),
    [
        (
            losses.MultiSimilarityLoss(),
            {"tuple_miner": SymmMiner(collect_stats=True)},
            "tuple_miner_SymmMiner",
        ),
        (
            SymmLoss(losses.MultiSimilarityLoss(), collect_stats=True),
            None,
            "metric_loss_SymmLoss",
        ),
        (SymmNPairsLoss(collect_stats=True), None, "metric_loss_SymmNPairsLoss"),
    ],
    ids=["miner", "wrapper", "loss"],
)
def test_record_keeper_gets_the_synthetic_ratio_and_recall(
    loss, mining_funcs, table, tmp_path, caplog
):
    caplog.set_level(logging.ERROR)
    record_keeper, _, tensorboard = logging_presets.get_record_keeper(
        str(tmp_path / "records"), str(tmp_path / "tensorboard")
    )
    hooks = logging_presets.HookContainer(
        record_keeper, primary_metric="recall_at_1", save_models=False, log_freq=5
    )
    train(loss, mining_funcs, hooks, tmp_path)
    tensorboard.close()
    ratios = record_keeper.query(f"SELECT synthetic_ratio FROM {table}", return_dict=True)[
        "synthetic_ratio"
    ]
    assert len(ratios) == 6
    assert all(0 <= ratio <= 1 for ratio in ratios)
    assert max(ratios) > 0
    accuracies = record_keeper.query(
        "SELECT recall_at_4_level0 FROM accuracies_normalized_GlobalEmbeddingSpaceTester"
        "_level_0_VAL_vs_self",
        return_dict=True,
    )
    assert all(0.5 < value <= 1 for value in accuracies["recall_at_4_level0"])
