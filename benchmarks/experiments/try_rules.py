"""Try rules by which mirror images take part, on validation classes.

python -m benchmarks.experiments.try_rules OUT glyphs N-pairs --rules control Symm capped
python -m benchmarks.experiments.try_rules OUT texts N-pairs --data-root clinc150.jsonl

Prints a row for each rule: recall@1 and MAP@R on the validation classes, and each seed's
difference to the control. A finished run in OUT is not trained again. Batches have two
samples per class. No rule was worth keeping: docs/mirror-images.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

import pml_symm
from pml_symm import SymmSynthesizer, SyntheticBatch
from pml_symm.functional import Candidates, reflect

from ..data.splits import FOLDS
from ..methods import methods
from ..reporting.tables import COMPARED, markdown
from ..training.run import run
from ..training.settings import CommonSettings, Settings, Source
from .command import PRESETS

TEXTS, HANDWRITING = (PRESETS[name].settings for name in ("texts", "handwriting"))
SETTINGS = {
    "glyphs": CommonSettings(steps=450, test_interval=150),
    # A quarter of the classes validates, another one for each seed.
    "texts": replace(TEXTS, batch_size=96, test_interval=300),
    "handwriting": replace(HANDWRITING, steps=600, test_interval=200, lr_step_size=None),
    "emoji": replace(
        PRESETS["emoji"].settings,
        steps=210,
        test_interval=70,
        learning_rate=1e-4,
        lr_step_size=None,
        head_factor=10.0,
    ),
}


def without(drop: Callable[[Candidates], Tensor]) -> Callable[[Candidates], Tensor]:
    """The rule by which the hardest of the candidates wins that are not dropped."""
    return lambda x: x.score.masked_fill(drop(x), -torch.inf)


def too_hard(x: Candidates) -> Tensor:
    """What has a mirror image and is not easier than the row class's positive pair."""
    return (x.row_synthetic | x.column_synthetic) & (x.score >= x.positive)


class Credible(SymmSynthesizer):
    """Without mirror images that have an original of another class nearer than their axis.

    Each becomes its source, which competes anyway.
    """

    def forward(self, embeddings: Tensor, labels: Tensor, *rest: Any) -> SyntheticBatch:
        """Make the pool."""
        pool = super().forward(embeddings, labels, *rest)
        same = pool.synthetic_labels.unsqueeze(1) == labels
        similarity = pool.synthetic @ embeddings.t()
        nearest = similarity.masked_fill(same, -torch.inf).amax(1, keepdim=True)
        wrong = nearest >= similarity.gather(1, pool.axis.unsqueeze(1))
        images = torch.where(wrong, embeddings[pool.source], pool.synthetic)
        return pool._replace(embeddings=torch.cat([embeddings, images]))


class By(SymmSynthesizer):
    """Makes mirror images by a function of source and axis."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def reflect(self, source: Tensor, axis: Tensor) -> Tensor:
        """The mirror images, row by row."""
        return self.function(source, axis)


def straight_through(value: Tensor, gradient: Tensor) -> Tensor:
    """Has the values of the first, and sends its gradient through the second."""
    return gradient + (value - gradient).detach()


def by_angle(source: Tensor, axis: Tensor) -> Tensor:
    """The nearer to the projection, the larger the angle is: alpha = 1 + cos t."""
    ratio = 1 + cosine_similarity(source, axis, dim=-1).clamp_min(0).unsqueeze(-1)
    projection = (reflect(source, axis) + source) / 2
    return ratio * projection - source


def gradient_by_angle(source: Tensor, axis: Tensor) -> Tensor:
    """A share sin t of the gradient as it is, the rest to the axis."""
    image = reflect(source, axis)
    cosine = cosine_similarity(source, axis, dim=-1).detach().clamp(-1, 1).unsqueeze(-1)
    share = (1 - cosine**2).sqrt()
    return straight_through(image, share * image + (1 - share) * axis)


capped = without(too_hard)
one_end = without(lambda x: x.row_synthetic & x.column_synthetic)
column_end = without(lambda x: x.row_synthetic)
source_held = By(lambda source, axis: reflect(source.detach(), axis))
to_axis = By(lambda source, axis: straight_through(reflect(source, axis), axis))
to_mean = By(
    lambda source, axis: straight_through(reflect(source, axis), (source + axis) / 2)
)
opponent = By(lambda source, axis: reflect(source, axis).detach())

RULES: dict[str, dict[str, Any]] = {
    "control": {"synthesizer": SymmSynthesizer(pairing="none")},
    "Symm": {},
    "capped": {"hardness": capped},
    "credible": {"synthesizer": Credible()},
    "one synthetic end": {"hardness": one_end},
    "column's end only": {"hardness": column_end},
    "alpha = 1.5": {"synthesizer": SymmSynthesizer(alpha=1.5)},
    "alpha by angle": {"synthesizer": By(by_angle)},
    "source held": {"synthesizer": source_held},
    "source held, capped": {"synthesizer": source_held, "hardness": capped},
    "gradient to the axis": {"synthesizer": to_axis},
    "gradient to the mean": {"synthesizer": to_mean},
    "opponent only": {"synthesizer": opponent},
    "gradient by angle": {"synthesizer": By(gradient_by_angle)},
    "gradient by angle, capped": {"synthesizer": By(gradient_by_angle), "hardness": capped},
}
"""Name -> arguments of a loss."""


class Lifted(pml_symm.SymmLiftedStructureLoss):
    """Lifted structure whose mirror images are made of unit vectors."""

    def forward(self, embeddings: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the loss."""
        return super().forward(normalize(embeddings), *args, **kwargs)


MAKE: dict[str, Callable[..., Any]] = {
    "N-pairs": partial(methods._n_pairs, pml_symm.SymmNPairsLoss),
    "Lifted": Lifted,
}


def main(
    out: tyro.conf.Positional[Path],
    dataset: tyro.conf.Positional[Literal["glyphs", "texts", "handwriting", "emoji"]],
    loss: tyro.conf.Positional[Literal["N-pairs", "Lifted"]],
    /,
    rules: tuple[str, ...] = tuple(RULES),
    seeds: tuple[int, ...] = (0, 1, 2),
    data_root: Path | None = None,
) -> None:
    """Train every rule with every seed, and print a table."""
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown:
        raise SystemExit(f"rules must be among {', '.join(RULES)}; got {unknown}")
    source = Source(data_root=data_root)
    percent: dict[str, np.ndarray] = {}  # a row for each seed
    for rule in rules:
        methods.METHODS[rule] = methods.Method(partial(MAKE[loss], **RULES[rule]))
        own = []
        for seed in seeds:
            settings = Settings(
                method=rule,
                seed=seed,
                fold=seed % FOLDS if dataset == "texts" else None,
                touch_test=False,
                **vars(SETTINGS[dataset]),
                data=source.name(SETTINGS[dataset].dataset),
            )
            found = run(settings, out / f"{dataset}-{loss}-{rule}-{seed}", source=source)
            own.append([100 * found["val"][name][-1] for name in COMPARED])
        percent[rule] = np.array(own)
    rows = [["rule", "R@1", "MAP@R", "R@1 minus control", "MAP@R minus control", "each"]]
    for rule, values in percent.items():
        cells = [f"{mean:.2f}" for mean in values.mean(axis=0)]
        if "control" in percent:
            differences = values - percent["control"]
            cells += [f"{mean:+.2f}" for mean in differences.mean(axis=0)]
            cells.append(", ".join(f"{x:+.2f}" for x in differences[:, 1]))
        rows.append([rule, *cells])
    print(markdown(rows))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
