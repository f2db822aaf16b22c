"""Several processes train like one process on the joined batch."""

import gc

import pytest
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils import distributed
from torch.nn.parallel import DistributedDataParallel

from pml_symm import (
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmTripletMarginLoss,
)

STEPS = 4
# With world size 2 and 3, some positive pairs are on one rank, others on two ranks.
LABELS = torch.tensor([0, 1, 2, 0, 1, 3, 2, 3, 4, 4, 5, 5])


def symm_loss_of_multi_similarity():
    return SymmLoss(losses.MultiSimilarityLoss())


def symm_loss_of_triplet():
    return SymmLoss(losses.TripletMarginLoss())


def no_miner():
    return None


# Loss, miner, and whether PML's loss of that kind takes a reference batch, which
# efficient=True needs.
CASES = {
    "n-pairs": (SymmNPairsLoss, no_miner, False),
    "triplet": (SymmTripletMarginLoss, no_miner, True),
    "lifted": (SymmLiftedStructureLoss, no_miner, True),
    "angular": (SymmAngularLoss, no_miner, True),
    "SymmLoss, pairs": (symm_loss_of_multi_similarity, no_miner, True),
    "SymmLoss, triplets": (symm_loss_of_triplet, no_miner, True),
    "SymmMiner": (losses.ContrastiveLoss, SymmMiner, True),
    "PML's own": (losses.ContrastiveLoss, no_miner, True),
}
RUNS = [
    (case, efficient)
    for case, (_, _, takes_reference) in CASES.items()
    for efficient in ([False, True] if takes_reference else [False])
]


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)
    ).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    shape = STEPS, len(LABELS), 6
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def train(model, loss_of_batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in batches():
        optimizer.zero_grad()
        loss_of_batch(model, batch).backward()
        optimizer.step()
    return [x.detach().clone() for x in model.parameters()]


def train_as_one_of_many(rank, world_size, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=world_size
    )
    found = {}
    for case, efficient in RUNS:
        make_loss, make_miner, _ = CASES[case]
        loss = distributed.DistributedLossWrapper(make_loss(), efficient)
        miner = make_miner()
        if miner is not None:
            miner = distributed.DistributedMinerWrapper(miner, efficient)
        labels = LABELS.chunk(world_size)[rank]

        def own_part(model, batch, loss=loss, miner=miner, labels=labels):
            embeddings = model(batch.chunk(world_size)[rank])
            mined = None if miner is None else miner(embeddings, labels)
            return loss(embeddings, labels, mined)

        parameters = train(DistributedDataParallel(make_model()), own_part)
        found[case, efficient] = parameters
    torch.save(found, f"{folder}/rank{rank}.pt")
    gc.collect()  # models that still exist may abort the process at its end
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def of_processes(request, tmp_path_factory):
    """The world size, and run -> the final parameters of each rank."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(
        train_as_one_of_many, (request.param, str(folder)), request.param
    )
    every = [torch.load(folder / f"rank{rank}.pt") for rank in range(request.param)]
    return request.param, {run: [found[run] for found in every] for run in RUNS}


def train_alone(case, efficient, world_size):
    make_loss, make_miner, _ = CASES[case]
    loss, miner = make_loss(), make_miner()

    def joined(model, batch):
        embeddings = model(batch)
        if not efficient:
            mined = None if miner is None else miner(embeddings, LABELS)
            return loss(embeddings, LABELS, mined)
        # efficient=True compares each rank's own points with all points, with gradients
        # only through its own points.
        total = 0
        parts = range(world_size)
        for part in parts:
            chunks, labels = embeddings.chunk(world_size), LABELS.chunk(world_size)
            others = [i for i in parts if i != part]
            reference = torch.cat([chunks[part], *(chunks[i].detach() for i in others)])
            ref_labels = torch.cat([labels[part], *(labels[i] for i in others)])
            mined = distributed.get_indices_tuple(
                labels[part], ref_labels, chunks[part], reference, miner
            )
            total = total + loss(chunks[part], labels[part], mined, reference, ref_labels)
        return total

    return train(make_model(), joined)


@pytest.mark.parametrize(("case", "efficient"), RUNS)
def test_parameters_are_those_of_one_process(case, efficient, of_processes):
    world_size, found = of_processes
    expected = train_alone(case, efficient, world_size)
    moved = [x - y for x, y in zip(expected, make_model().parameters(), strict=True)]
    assert max(x.abs().max() for x in moved) > 1e-3
    for parameters in found[case, efficient]:
        torch.testing.assert_close(parameters, expected, rtol=0, atol=1e-9)


def test_n_pairs_refuses_a_reference_as_pml_s_does():
    embeddings = torch.randn(4, 3)
    labels = torch.tensor([0, 0, 1, 1])
    for loss in (losses.NPairsLoss(), SymmNPairsLoss()):
        with pytest.raises(ValueError, match="ref_emb is not supported"):
            loss(embeddings, labels, None, embeddings.clone(), labels)
