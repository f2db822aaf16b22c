"""AccuracyCalculator against plain loops, PML's AccuracyCalculator, and PML's tester."""

import math

import numpy as np
import pytest
import pytorch_metric_learning.utils.accuracy_calculator as pml_calculator
import torch
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from torch.utils.data import TensorDataset

from pml_symm import AccuracyCalculator, SymmSynthesizer


def batch(classes=6, members=5, size=8, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(members)
    centres = torch.randn(classes, size, generator=generator)
    noise = torch.randn(len(labels), size, generator=generator)
    return centres[labels] + spread * noise, labels


def recall(queries, query_labels, references, reference_labels, k, same):
    hits = []
    for i, query in enumerate(queries):
        neighbours = sorted(
            (float((query - reference).norm()), int(reference_labels[j]))
            for j, reference in enumerate(references)
            if not (same and i == j)
        )
        others = [label for _, label in neighbours]
        if int(query_labels[i]) in others:
            hits.append(int(query_labels[i]) in others[:k])
    return sum(hits) / len(hits)


@pytest.mark.parametrize("k", [1, 2, 4, 8, 1000])
@pytest.mark.parametrize("same", [True, False])
def test_recall_is_the_share_of_queries_with_a_hit(k, same):
    queries, query_labels = batch()
    query_labels = query_labels.clone()
    query_labels[0] = 99  # a query without a reference of its class does not count
    references, reference_labels = (queries, query_labels) if same else batch(seed=1)
    calculator = AccuracyCalculator(recall_at=(k,), include=(f"recall_at_{k}",))
    arguments = (queries, query_labels) + (() if same else (references, reference_labels))
    found = calculator.get_accuracy(*arguments)
    expected = recall(queries, query_labels, references, reference_labels, k, same)
    assert 0 < expected <= 1
    assert found == {f"recall_at_{k}": pytest.approx(expected)}


@pytest.mark.parametrize("k", [None, "max_bin_count", 3])
def test_the_metrics_of_pml_keep_their_values(k):
    embeddings, labels = batch(spread=2.0)
    arguments = {"k": k, "exclude": ("NMI", "AMI")}
    expected = pml_calculator.AccuracyCalculator(**arguments).get_accuracy(
        embeddings, labels
    )
    arguments["exclude"] += ("F1",)
    found = AccuracyCalculator(recall_at=(1, 20), **arguments).get_accuracy(
        embeddings, labels
    )
    assert {name: found[name] for name in expected} == expected
    assert set(found) - set(expected) == {"recall_at_1", "recall_at_20"}
    assert found["recall_at_20"] > found["recall_at_1"] == found["precision_at_1"]


def test_f1_counts_pairs():
    embeddings, labels = batch()
    clusters = torch.randint(4, labels.shape, generator=torch.Generator().manual_seed(2))
    calculator = AccuracyCalculator(
        include=("F1",), kmeans_func=lambda *arguments: clusters
    )
    together = true = same_class = 0
    for i in range(len(labels)):
        for j in range(i):
            is_class, is_cluster = labels[i] == labels[j], clusters[i] == clusters[j]
            together += int(is_cluster)
            same_class += int(is_class)
            true += int(is_class and is_cluster)
    precision, pair_recall = true / together, true / same_class
    expected = 2 * precision * pair_recall / (precision + pair_recall)
    assert calculator.get_accuracy(embeddings, labels)["F1"] == pytest.approx(expected)


def test_f1_of_well_separated_classes_is_one():
    # Two classes: with more, k-means may end in a local optimum.
    embeddings, labels = batch(classes=2, spread=1e-3)
    calculator = AccuracyCalculator(include=("F1", "NMI"))
    found = calculator.get_accuracy(embeddings, labels)
    assert found == {"F1": 1.0, "NMI": pytest.approx(1.0)}


def test_recall_averages_over_classes_if_asked():
    embeddings = torch.tensor([[0.0], [0.1], [0.2], [5.0], [0.05]])
    labels = torch.tensor([0, 0, 0, 1, 1])
    arguments = {"recall_at": (1,), "include": ("recall_at_1",)}
    found = AccuracyCalculator(avg_of_avgs=True, **arguments).get_accuracy(
        embeddings, labels
    )
    per_class = AccuracyCalculator(return_per_class=True, **arguments).get_accuracy(
        embeddings, labels
    )
    # Rows 0 and 1 are nearest to the intruder, row 2 to row 1.
    assert per_class["recall_at_1"] == pytest.approx([1 / 3, 0.0])
    assert found["recall_at_1"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("role", ["query", "reference"])
def test_synthetic_points_can_be_queries_or_references(role):
    embeddings, labels = batch(classes=2, members=3, spread=0.05)
    embeddings.requires_grad_()
    pool = SymmSynthesizer()(embeddings, labels)
    synthetic = pool.synthetic, pool.synthetic_labels
    pairs = [synthetic, (embeddings, labels)]
    query, reference = pairs if role == "query" else pairs[::-1]
    calculator = AccuracyCalculator(include=("recall_at_1", "F1"))
    found = calculator.get_accuracy(*query, *reference)
    assert found == {"recall_at_1": 1.0, "F1": 1.0}


def test_pml_tester_reports_the_added_metrics():
    embeddings, labels = batch()
    tester = GlobalEmbeddingSpaceTester(
        accuracy_calculator=AccuracyCalculator(
            include=("recall_at_1", "F1"), device=torch.device("cpu")
        ),
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
        normalize_embeddings=False,
    )
    found = tester.test({"val": TensorDataset(embeddings, labels)}, 1, torch.nn.Identity())[
        "val"
    ]
    expected = recall(embeddings, labels, embeddings, labels, 1, same=True)
    assert found["recall_at_1_level0"] == pytest.approx(expected)
    assert 0 < found["F1_level0"] <= 1


def test_recall_is_not_a_number_where_no_query_has_a_neighbour_to_find():
    embeddings, _ = batch()
    metrics = ("recall_at_1", "precision_at_1")
    found = AccuracyCalculator(include=metrics).get_accuracy(
        embeddings, torch.arange(len(embeddings))
    )
    # precision_at_1 shows how PML reports this case.
    assert all(math.isnan(found[metric]) for metric in metrics)


@pytest.mark.parametrize("k", [0, -1, 1.5, "4", True])
def test_a_k_that_is_not_a_positive_int_is_refused(k):
    with pytest.raises(ValueError, match=f"recall_at must hold ints >= 1, got {k!r}"):
        AccuracyCalculator(recall_at=(1, k))


def test_a_k_of_numpy():
    assert AccuracyCalculator(recall_at=(np.int64(2),)).recall_at == (2,)


def test_a_single_k_is_refused():
    with pytest.raises(TypeError, match="recall_at must be a sequence of ints, got 4"):
        AccuracyCalculator(recall_at=4)


def test_missing_labels_are_named():
    points, labels = torch.randn(4, 2), torch.arange(4) // 2
    for name, inputs in (
        ("query_labels", (points, None)),
        ("query_labels", (points, None, points, labels)),
        ("reference_labels", (points, labels, points, None)),
    ):
        with pytest.raises(ValueError, match=f"{name} must be given, got None"):
            AccuracyCalculator().get_accuracy(*inputs)


def test_an_unknown_metric_is_refused_by_pml():
    with pytest.raises(ValueError, match="Primary metrics must be one or more of"):
        AccuracyCalculator(recall_at=(1, 2), include=("recall_at_3",))


METRICS = ("recall_at_1", "mean_average_precision_at_r", "NMI", "F1")


OTHER_LABELS = {
    "large": lambda labels: labels + (1 << 40),
    "negative": lambda labels: labels - (1 << 40),
    "uint16": lambda labels: labels.to(torch.uint16),
    "uint64": lambda labels: labels.to(torch.uint64),
    "numpy": lambda labels: labels.numpy().astype("uint32"),
}


@pytest.mark.parametrize("other", OTHER_LABELS.values(), ids=OTHER_LABELS)
def test_labels_that_float32_does_not_hold(other):
    """PML rounds labels to float32, which merges neighbours beyond 2^24."""
    embeddings, labels = batch(spread=2.0)
    calculator = AccuracyCalculator(include=METRICS, recall_at=(1,))
    expected = calculator.get_accuracy(embeddings, labels)
    assert 0 < expected["recall_at_1"] < 1
    found = calculator.get_accuracy(embeddings, other(labels))
    assert found == pytest.approx(expected)
    even = torch.arange(0, len(labels), 2)
    query, reference = embeddings[even], embeddings[even + 1]
    query_labels, reference_labels = labels[even], labels[even + 1].flip(0)
    expected = calculator.get_accuracy(query, query_labels, reference, reference_labels)
    found = calculator.get_accuracy(
        query, other(query_labels), reference, other(reference_labels)
    )
    assert found == pytest.approx(expected, nan_ok=True)


def near(x, y):
    return (x - y).abs() <= 1


def test_f1_is_left_out_where_labels_are_compared_by_a_function():
    embeddings, labels = batch()
    calculator = AccuracyCalculator(exclude=("NMI", "AMI"), label_comparison_fn=near)
    theirs = pml_calculator.AccuracyCalculator(
        exclude=("NMI", "AMI"), label_comparison_fn=near
    )
    found = calculator.get_accuracy(embeddings, labels)
    assert set(found) >= {"recall_at_1"} and "F1" not in found
    for name, value in theirs.get_accuracy(embeddings, labels).items():
        assert found[name] == pytest.approx(value)


def test_f1_is_refused_by_name_where_labels_are_compared_by_a_function():
    with pytest.raises(NotImplementedError, match="F1 cannot be computed with a label"):
        AccuracyCalculator(include=("F1",), label_comparison_fn=near)


def test_recall_by_a_function_of_two_labels():
    points, labels = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([0, 1, 5, 9])
    calculator = AccuracyCalculator(
        exclude=("NMI", "AMI"), label_comparison_fn=lambda x, y: (x - y).abs() <= 1
    )
    found = calculator.get_accuracy(points, labels)
    assert found["recall_at_1"] == found["precision_at_1"] == 1
