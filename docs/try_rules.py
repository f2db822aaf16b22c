"""Try rules by which mirror images take part, on validation classes.

python -m docs.try_rules OUT glyphs N-pairs --rules control Symm capped
python -m docs.try_rules OUT texts N-pairs --data-root clinc150.jsonl

Prints a row for each rule: recall@1 and MAP@R on the validation classes, and each seed's
difference to the control. A finished run in OUT is not trained again. Batches have two
samples per class. No rule was worth keeping: docs/mirror-images.md.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from pytorch_metric_learning import losses
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from benchmarks.data.splits import FOLDS
from benchmarks.methods import methods
from benchmarks.reporting.tables import markdown
from benchmarks.training.run import run
from benchmarks.training.settings import Settings, Source
from pml_symm.functional import reflect

Dataset = Literal["glyphs", "texts", "handwriting", "emoji"]
SETTINGS: dict[Dataset, dict[str, Any]] = {
    "glyphs": {"steps": 450, "test_interval": 150},
    # A quarter of the classes validates, another one for each seed.
    "texts": {
        "dataset": "texts",
        "trunk": "minilm",
        "freeze_until": 8,
        "embedding_size": 128,
        "batch_size": 96,
        "steps": 600,
        "test_interval": 300,
        "learning_rate": 3e-4,
    },
    "handwriting": {
        "dataset": "folder",
        "trunk": "convnet",
        "image_size": 32,
        "test_classes": "evaluation.*",
        "augmentation": "none",
        "steps": 600,
        "test_interval": 200,
    },
    "emoji": {
        "dataset": "folder",
        "trunk": "efficientnet-lite0",
        "image_size": 96,
        "augmentation": "none",
        "freeze_until": 11,
        "head_factor": 10.0,
        "embedding_size": 128,
        "learning_rate": 1e-4,
        "steps": 210,
        "test_interval": 70,
    },
}


class Candidates(NamedTuple):
    """What a rule sees.

    Attributes:
        score: shape (C, K, C, K), of two points each: two originals and, but for the
            control, two mirror images.
        positive: shape (C,), the score of each class's positive pair.
        row, column: bool, which points are mirror images; they broadcast with score.
    """

    score: Tensor
    positive: Tensor
    row: Tensor
    column: Tensor

    @property
    def above_row(self) -> Tensor:
        """What is not easier than the row class's positive pair."""
        return self.score >= self.positive.view(-1, 1, 1, 1)

    @property
    def above_column(self) -> Tensor:
        """What is not easier than the column class's positive pair."""
        return self.score >= self.positive.view(1, 1, -1, 1)

    @property
    def unlike_its_class(self) -> Tensor:
        """Mirror images that have an original of another class nearer than their axis."""
        num_classes = len(self.positive)
        same = torch.eye(num_classes, dtype=torch.bool).view(num_classes, 1, num_classes, 1)
        nearest = self.score[..., :2].masked_fill(same, -torch.inf).amax((2, 3))
        wrong = (nearest >= self.positive.unsqueeze(1)) & self.row.view(1, -1)
        return wrong[:, :, None, None] | wrong


@dataclass(frozen=True)
class Rule:
    """How mirror images are made, and which candidates with them do not compete.

    Attributes:
        drop: of Candidates, bool that broadcasts with score; None for nothing.
        make: of source and axis, the mirror image; None for no mirror images.
    """

    drop: Callable[[Candidates], Tensor] | None = None
    make: Callable[[Tensor, Tensor], Tensor] | None = reflect


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


def capped(x: Candidates) -> Tensor:
    """What has a mirror image and is not easier than the row class's positive pair."""
    return (x.row | x.column) & x.above_row


RULES = {
    "control": Rule(make=None),
    "Symm": Rule(),
    "capped": Rule(capped),
    "recognized": Rule(lambda x: x.row & x.above_row | x.column & x.above_column),
    "credible": Rule(lambda x: x.unlike_its_class),
    "one synthetic end": Rule(lambda x: x.row & x.column),
    "column's end only": Rule(lambda x: x.row),
    "alpha = 1.5": Rule(make=partial(reflect, alpha=1.5)),
    "alpha by angle": Rule(make=by_angle),
    "source held": Rule(make=lambda source, axis: reflect(source.detach(), axis)),
    "source held, capped": Rule(
        capped, lambda source, axis: reflect(source.detach(), axis)
    ),
    "gradient to the axis": Rule(
        make=lambda source, axis: straight_through(reflect(source, axis), axis)
    ),
    "gradient to the mean": Rule(
        make=lambda source, axis: straight_through(
            reflect(source, axis), (source + axis) / 2
        )
    ),
    "opponent only": Rule(make=lambda source, axis: reflect(source, axis).detach()),
    "gradient by angle": Rule(make=gradient_by_angle),
    "gradient by angle, capped": Rule(capped, gradient_by_angle),
}


def hardness(members: Tensor, rule: Rule, normalized: bool) -> Tensor:
    """H(u, v), shape (C, C), as scores, of members of shape (C, 2, D)."""
    points = members
    if rule.make is not None:
        images = rule.make(members, members.flip(1))
        images = normalize(images, dim=-1) if normalized else images
        points = torch.cat([members, images], dim=1)
    score = torch.einsum("ukd,vld->ukvl", points, points)
    is_image = torch.arange(points.shape[1]) >= 2
    candidates = Candidates(
        score.detach(),
        (members[:, 0] * members[:, 1]).sum(dim=-1).detach(),
        is_image.view(1, -1, 1, 1),
        is_image.view(1, 1, 1, -1),
    )
    if rule.drop is not None:
        score = score.masked_fill(rule.drop(candidates), -torch.inf)
    return score.amax((1, 3))


def by_class(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Shape (C, 2, D)."""
    return embeddings[torch.argsort(labels, stable=True)].view(-1, 2, embeddings.shape[1])


class NPairs(losses.NPairsLoss):
    """N-pairs with a rule."""

    def __init__(self, rule: Rule, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rule = rule

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *_: Any) -> dict:
        """Compute one term for each class."""
        members = by_class(embeddings, labels)
        logits = hardness(members, self.rule, normalized=False)
        logits = logits.diagonal_scatter((members[:, 0] * members[:, 1]).sum(dim=-1))
        classes = torch.arange(len(members))
        terms = self.cross_entropy(logits, classes)
        return {"loss": {"losses": terms, "indices": classes, "reduction_type": "element"}}


class Lifted(losses.LiftedStructureLoss):
    """Lifted structure with a rule."""

    def __init__(self, rule: Rule, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rule = rule

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *_: Any) -> dict:
        """Compute the mean over all classes."""
        members = normalize(by_class(embeddings, labels), dim=-1)
        score = hardness(members, self.rule, normalized=True)
        distance = (2 - 2 * score).clamp_min(1e-12).sqrt()
        same = torch.eye(len(members), dtype=torch.bool)
        repulsion = (self.neg_margin - distance).masked_fill(same, -torch.inf).logsumexp(1)
        attraction = (members[:, 0] - members[:, 1]).norm(dim=-1) - self.pos_margin
        terms = torch.relu(repulsion + attraction) ** 2 / 2
        return {
            "loss": {
                "losses": terms.mean(),
                "indices": None,
                "reduction_type": "already_reduced",
            }
        }


MAKE: dict[str, Callable[..., Any]] = {
    "N-pairs": partial(methods._n_pairs, NPairs),
    "Lifted": Lifted,
}


def main(
    out: tyro.conf.Positional[Path],
    dataset: tyro.conf.Positional[Dataset],
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
    shares: dict[str, list[tuple[float, float]]] = {}
    for rule in rules:
        methods.METHODS[rule] = methods.Method(partial(MAKE[loss], rule=RULES[rule]))
        for seed in seeds:
            settings = Settings(
                method=rule,
                seed=seed,
                fold=seed % FOLDS if dataset == "texts" else None,
                touch_test=False,
                **SETTINGS[dataset],
                data=source.name(SETTINGS[dataset].get("dataset", "glyphs")),
            )
            found = run(settings, out / f"{dataset}-{loss}-{rule}-{seed}", source=source)
            last = tuple(
                100 * found["val"][name][-1]
                for name in ("recall_at_1", "mean_average_precision_at_r")
            )
            shares.setdefault(rule, []).append(last)
    rows = [["rule", "R@1", "MAP@R", "R@1 minus control", "MAP@R minus control", "each"]]
    for rule, own in shares.items():
        cells = [f"{statistics.mean(x):.2f}" for x in zip(*own, strict=True)]
        if "control" in shares:
            pairs = zip(own, shares["control"], strict=True)
            differences = [(x[0] - y[0], x[1] - y[1]) for x, y in pairs]
            means = [statistics.mean(x) for x in zip(*differences, strict=True)]
            cells += [f"{mean:+.2f}" for mean in means]
            cells.append(", ".join(f"{x[1]:+.2f}" for x in differences))
        rows.append([rule, *cells])
    print(markdown(rows))


if __name__ == "__main__":
    tyro.cli(main)
