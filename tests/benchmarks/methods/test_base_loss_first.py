"""--base-steps: the base loss first, the Symm loss or its control after it."""

import pytest
import torch

from benchmarks.methods.methods import METHODS, Synthesis
from benchmarks.training.run import run
from benchmarks.training.settings import Settings

EMBEDDINGS = torch.tensor([[1.0, 0.2], [0.8, 0.6], [-0.6, 0.8], [0.1, 1.0]])
LABELS = torch.tensor([0, 0, 1, 1])


def losses(base_steps, number, method="Symm + N-pairs"):
    loss, _ = METHODS[method].make(Synthesis(base_steps=base_steps))
    return [loss(EMBEDDINGS, LABELS).item() for _ in range(number)]


@pytest.mark.parametrize("method", ["Symm + N-pairs", "N-pairs, hardest originals"])
def test_the_losses_come_one_after_the_other(method):
    (base,), (other,) = losses(0, 1, "N-pairs"), losses(0, 1, method)
    assert base != other
    assert losses(2, 4, method) == [base, base, other, other]


def test_a_continued_run_counts_the_steps_before():
    loss, _ = METHODS["Symm + N-pairs"].make(Synthesis(base_steps=2))
    loss(EMBEDDINGS, LABELS)
    again, _ = METHODS["Symm + N-pairs"].make(Synthesis(base_steps=2))
    again.load_state_dict(loss.state_dict())
    expected = [loss(EMBEDDINGS, LABELS) for _ in range(2)]
    assert [again(EMBEDDINGS, LABELS) for _ in range(2)] == expected


@pytest.mark.parametrize("method", ["SymmMiner + Triplet", "Symm + Triplet, semi-hard"])
def test_methods_with_miners_are_refused(method):
    with pytest.raises(ValueError, match="base_steps does not fit methods with miners"):
        Settings(method=method, seed=0, base_steps=1)


@pytest.mark.parametrize("number", [-1, 300])
def test_what_leaves_no_step_to_symm_is_refused(number):
    with pytest.raises(ValueError, match=f"base_steps must .* less than .* got {number}"):
        Settings(method="Symm + N-pairs", seed=0, steps=300, base_steps=number)


def test_the_share_of_synthetic_negatives_is_recorded(tmp_path):
    settings = Settings(
        method="Symm + N-pairs",
        seed=0,
        steps=40,
        test_interval=40,
        batch_size=8,
        embedding_size=4,
        width=1,
        max_classes=20,
        base_steps=15,
    )
    found = run(settings, tmp_path / "run")["synthetic_ratio"]
    before = [x for step, x in zip(*found.values(), strict=True) if step < 15]
    after = [x for step, x in zip(*found.values(), strict=True) if step >= 15]
    assert not any(before)
    assert all(0 < x <= 1 for x in after)
    assert before and after
