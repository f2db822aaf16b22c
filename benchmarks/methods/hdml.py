"""Hardness-aware deep metric learning (Zheng et al., CVPR 2019) as a PML trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_metric_learning.trainers import TrainWithClassifier
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from torch import Tensor

EPOCH = 50  # steps, over which the metric loss is averaged


def harder_negatives(
    anchors: Tensor, positives: Tensor, negatives: Tensor, strength: float
) -> Tensor:
    """Pull negatives towards their anchors, at most to the distance of the positive.

    A negative at distance d from its anchor, with the positive at d_p < d, moves to the
    distance strength d + (1 - strength) d_p; negatives nearer than d_p stay.

    All have the shape (T, D). Strength is exp(-alpha / J_avg), in [0, 1]; 1 moves nothing.

    Source: Zheng et al., CVPR 2019, equations 4 and 5.

    >>> import torch
    >>> anchor, positive = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    >>> harder_negatives(anchor, positive, torch.tensor([[0.0, 3.0]]), 0.5)
    tensor([[0., 2.]])
    """
    to_positive = torch.linalg.vector_norm(positives - anchors, dim=1, keepdim=True)
    to_negative = torch.linalg.vector_norm(negatives - anchors, dim=1, keepdim=True)
    ratio = to_positive / to_negative.clamp_min(torch.finfo(anchors.dtype).tiny)
    factor = torch.where(ratio < 1, strength + (1 - strength) * ratio, 1)
    return anchors + factor * (negatives - anchors)


class HardnessAwareMetricLearning(TrainWithClassifier):
    """Trains on real tuples, and on tuples whose negatives a generator made harder.

    The generator maps embeddings back to the trunk's features. It learns to
    reconstruct them, and to keep the labels of pulled negatives. As it gets better, the
    weight moves to the synthetic tuples: metric_loss has the weight exp(-1 / J_gen), and
    synth_loss the rest. Only J_gen trains the generator, not the embedder's losses.

    In addition to what TrainWithClassifier takes, models has "generator", embeddings to
    features, and "classifier", features to classes; loss_funcs has "synth_loss", a PML
    loss that takes triplets and ref_emb. Labels have to count from 0: use
    set_min_label_to_zero and dataset_labels.

    Each anchor has one generated negative, also with N-pairs, where the authors generate
    all; their beta is 1, and both terms of the generator have the same weight.

    Args:
        alpha: how fast negatives get harder: strength is exp(-alpha / J_avg), with the
            mean metric loss of the last EPOCH steps.

    Source: Zheng et al., "Hardness-Aware Deep Metric Learning", CVPR 2019, section 3.
    """

    def __init__(self, *args: Any, alpha: float, **kwargs: Any) -> None:
        self.alpha = alpha
        self.last_average = math.inf  # no harder negatives in the first epoch
        self._sum, self._count = 0.0, 0
        super().__init__(*args, **kwargs)

    def custom_setup(self) -> None:
        """PML's hook: this class computes the generator's terms, not a loss_func."""
        self.loss_names += ["reconstruction_loss", "label_loss"]

    def modify_schema(self) -> None:
        """PML's hook: the models and losses that have to be given."""
        super().modify_schema()
        self.schema["models"].keys += ["generator"]
        self.schema["models"].essential += ["generator", "classifier"]
        self.schema["loss_funcs"].keys += ["synth_loss"]
        self.schema["loss_funcs"].essential += ["synth_loss"]

    def calculate_loss(self, curr_batch: tuple[Tensor, Tensor]) -> None:
        """PML's hook: all terms of one batch."""
        data, labels = curr_batch
        features = self.get_trunk_output(data)
        embeddings = self.get_final_embeddings(features)
        labels = labels.to(embeddings.device)
        metric_loss = self.loss_funcs["metric_loss"](embeddings, labels)
        self._keep_average(float(metric_loss.detach()))

        anchors, positives, negatives = lmu.convert_to_triplets(
            None, labels, t_per_anchor=1
        )
        fixed = embeddings.detach()
        harder = harder_negatives(
            fixed[anchors], fixed[positives], fixed[negatives], self.strength
        )
        generated = self.models["generator"](torch.cat([harder, fixed]))
        synthetic, reconstructed = generated.split([len(harder), len(fixed)])
        reconstruction = torch.nn.functional.mse_loss(reconstructed, features.detach())
        # The label's term trains the generator, not the classifier.
        label_loss = self._label_loss(synthetic, labels[negatives])

        again = self.get_final_embeddings(synthetic.detach())
        numbers = torch.arange(len(again), device=again.device) + len(embeddings)
        synth_loss = self.loss_funcs["synth_loss"](
            embeddings,
            labels,
            (anchors, positives, numbers),
            ref_emb=torch.cat([embeddings, again]),
            ref_labels=torch.cat([labels, labels[negatives]]),
        )
        generator_loss = float((reconstruction + label_loss).detach())
        share = math.exp(-1 / generator_loss) if generator_loss > 0 else 0.0
        self.losses["metric_loss"] = share * metric_loss
        self.losses["synth_loss"] = (1 - share) * synth_loss
        self.losses["reconstruction_loss"] = reconstruction
        self.losses["label_loss"] = label_loss
        self.losses["classifier_loss"] = self.loss_funcs["classifier_loss"](
            self.models["classifier"](features.detach()), labels
        )

    @property
    def strength(self) -> float:
        """exp(-alpha / J_avg): 1 before there is an average, and 0 for a loss of 0."""
        if self.last_average == 0:
            return 0.0
        return math.exp(-self.alpha / self.last_average)

    def state_dict(self) -> dict[str, Any]:
        """The state between steps, in addition to that of PML's trainers."""
        return {
            "last_average": self.last_average,
            "sum": self._sum,
            "count": self._count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what state_dict returned."""
        self.last_average = state["last_average"]
        self._sum, self._count = state["sum"], state["count"]

    def _keep_average(self, loss: float) -> None:
        self._sum += loss
        self._count += 1
        if self._count == EPOCH:
            self.last_average = self._sum / self._count
            self._sum, self._count = 0.0, 0

    def _label_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        classifier = self.models["classifier"]
        logits = torch.nn.functional.linear(
            features, classifier.weight.detach(), classifier.bias.detach()
        )
        return self.loss_funcs["classifier_loss"](logits, labels)
