"""PML's AccuracyCalculator with recall@k and pairwise clustering F1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_metric_learning.utils.accuracy_calculator as pml_calculator
import torch
from sklearn.metrics.cluster import pair_confusion_matrix
from torch import Tensor

from .pml import c_f
from .validation import is_count, whole_labels


class AccuracyCalculator(pml_calculator.AccuracyCalculator):
    """PML's AccuracyCalculator with the metrics that retrieval papers report.

    Adds ``recall_at_{k}`` for each k of recall_at: the share of queries with at least
    one reference of their class among the k nearest, of those that have one at all. Adds
    ``F1``: the harmonic mean of pair precision and pair recall between k-means clusters
    and classes (NaN if neither has a pair). PML's own metrics keep their values. A k
    larger than the number of references means all of them.

    Args:
        recall_at: the values of k, each an int >= 1. CUB-200-2011 and CARS196 are
            reported at 1, 2, 4, 8, Stanford Online Products at 1, 10, 100, 1000.
        **kwargs: arguments of PML's AccuracyCalculator: include, exclude, avg_of_avgs,
            return_per_class, k, label_comparison_fn, device, knn_func, kmeans_func.

    Raises:
        TypeError: recall_at is not a sequence.
        ValueError: a value of recall_at is not an int >= 1, or PML raises it.
        NotImplementedError: a label_comparison_fn with F1, NMI or AMI. F1 is excluded
            unless include names it; NMI and AMI have to be in exclude, as in PML.

    Source: Oh Song et al., CVPR 2016, whose protocol Gu & Ko, AAAI 2020, follow.

    Examples:
        >>> import torch
        >>> from pml_symm import AccuracyCalculator
        >>> calculator = AccuracyCalculator(include=("recall_at_1", "recall_at_2"))
        >>> query, labels = torch.tensor([[0.0], [1.0], [1.4], [9.0]]), torch.arange(4) % 2
        >>> calculator.get_accuracy(query, labels)
        {'recall_at_1': 0.0, 'recall_at_2': 0.75}
    """

    def __init__(self, recall_at: Sequence[int] = (1, 2, 4, 8), **kwargs: Any) -> None:
        if not isinstance(recall_at, Sequence):
            raise TypeError(f"recall_at must be a sequence of ints, got {recall_at!r}")
        for k in recall_at:
            if not is_count(k):
                raise ValueError(f"recall_at must hold ints >= 1, got {k!r}")
        self.recall_at = tuple(recall_at)
        self._labels_are_classes = kwargs.get("label_comparison_fn") is None
        if not self._labels_are_classes:
            # F1 compares clusters with classes; such labels need not be classes.
            if "F1" in kwargs.get("include", ()):
                raise NotImplementedError(
                    "F1 cannot be computed with a label_comparison_fn"
                )
            kwargs["exclude"] = (*kwargs.get("exclude", ()), "F1")
        for k in self.recall_at:
            # PML finds metrics by this prefix of an attribute's name.
            setattr(self, f"calculate_recall_at_{k}", partial(self._recall, at=k))
        super().__init__(**kwargs)

    def get_accuracy(
        self,
        query: Tensor | np.ndarray,
        query_labels: Tensor | np.ndarray,
        reference: Tensor | np.ndarray | None = None,
        reference_labels: Tensor | np.ndarray | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Compute the metrics as PML does; embeddings may require gradients.

        Args:
            query: shape (Q, D).
            query_labels: shape (Q,).
            reference: shape (R, D); by default the queries.
            reference_labels: shape (R,).
            *args: further arguments of PML's: ref_includes_query, include, exclude.
            **kwargs: the same.

        Returns:
            The metrics by name.

        Raises:
            ValueError: labels are missing, lengths do not match, or ref_includes_query is
                True and reference does not begin with the queries.
        """
        for name, points, labels in (
            ("query_labels", query, query_labels),
            ("reference_labels", reference, reference_labels),
        ):
            if points is not None and labels is None:
                raise ValueError(f"{name} must be given, got None")
        if self._labels_are_classes:
            query_labels, reference_labels = _dense(query_labels, reference_labels)
        return super().get_accuracy(
            *(_detached(query), query_labels, _detached(reference), reference_labels),
            *args,
            **kwargs,
        )

    def _recall(
        self,
        knn_labels: Tensor,
        query_labels: Tensor,
        not_lone_query_mask: Tensor,
        label_counts: tuple[Tensor, Tensor],
        at: int,
        **kwargs: Any,
    ) -> float | list[float]:
        knn_labels, query_labels = pml_calculator.try_getting_not_lone_labels(
            knn_labels, query_labels, not_lone_query_mask
        )
        if knn_labels is None:
            return pml_calculator.nan_accuracy(label_counts[0], self.return_per_class)
        query_labels = query_labels[:, None]
        hits = self.label_comparison_fn(query_labels, knn_labels[:, :at]).any(dim=1)
        return pml_calculator.maybe_get_avg_of_avgs(
            hits.double(), query_labels, self.avg_of_avgs, self.return_per_class
        )

    def calculate_F1(
        self, query_labels: Tensor, cluster_labels: Tensor, **kwargs: Any
    ) -> float:
        """Pairwise F1 between classes and clusters; shapes (Q,)."""
        pairs = pair_confusion_matrix(
            c_f.to_numpy(query_labels), c_f.to_numpy(cluster_labels)
        )
        (_, false_positive), (false_negative, true_positive) = pairs.tolist()
        total = 2 * true_positive + false_positive + false_negative
        return 2 * true_positive / total if total else float("nan")

    def requires_clustering(self) -> list[str]:
        """The metrics that need clusters: PML's and F1."""
        return [*super().requires_clustering(), "F1"]

    def requires_knn(self) -> list[str]:
        """The metrics that need neighbours: PML's and recall at every k."""
        return [*super().requires_knn(), *(f"recall_at_{k}" for k in self.recall_at)]

    def determine_k(
        self, bin_counts: Tensor, num_reference_embeddings: int, ref_includes_query: bool
    ) -> int:
        """The number of neighbours that PML's metrics and recall need."""
        others = num_reference_embeddings - int(ref_includes_query)
        self._pml_k = super().determine_k(
            bin_counts, num_reference_embeddings, ref_includes_query
        )
        wanted = [k for k in self.recall_at if f"recall_at_{k}" in self.get_curr_metrics()]
        return max(self._pml_k, min(max(wanted, default=0), others))

    def _get_accuracy(self, function_dict: dict, **kwargs: Any) -> dict:
        # The neighbours beyond PML's own k would change its mean average precision.
        narrow = {
            name: value[:, : self._pml_k] if name.startswith("knn_") else value
            for name, value in kwargs.items()
        }
        recalls = {f"recall_at_{k}" for k in self.recall_at}
        return {
            name: calculate(**(kwargs if name in recalls else narrow))
            for name, calculate in function_dict.items()
        }


def _dense(query: Any, reference: Any) -> tuple[Any, Any]:
    """Number the classes from 0, because PML rounds labels to float32."""
    labels = [torch.as_tensor(x) for x in (query, reference) if x is not None]
    if any(x.ndim != 1 for x in labels):
        return query, reference
    whole = [whole_labels(x).cpu() for x in labels]
    dense = torch.unique(torch.cat(whole), return_inverse=True)[1]
    parts = dense.split([len(x) for x in whole])
    return parts[0], None if reference is None else parts[1]


def _detached(points: Any) -> Any:
    return points.detach() if isinstance(points, Tensor) else points
