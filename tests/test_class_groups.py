"""Which rows belong to which class."""

import pytest
import torch

from pml_symm import SymmSynthesizer
from pml_symm.functional.class_groups import ClassGroups, class_groups

LABELS = {
    "ragged": [7, -5, 7, 2**60, -5, 7, 3, 0],
    "balanced": [4, 1, 4, -1, -1, 1],
    "one class": [3, 3, 3],
    "all alone": [2, 0, 1],
    "no row": [],
}


@pytest.fixture(params=LABELS.values(), ids=LABELS)
def labels(request):
    return torch.tensor(request.param, dtype=torch.long)


def test_every_row_once(labels):
    groups = class_groups(labels)
    sizes = torch.unique(labels, return_counts=True)[1].unique().tolist()
    assert [group.shape[1] for group in groups.groups if len(group)] == sizes
    rows = torch.cat([group.flatten() for group in groups.groups])
    assert rows.sort().values.tolist() == list(range(len(labels)))
    assert groups.num_classes == len(labels.unique())
    assert groups.are_pairs == (sizes == [2])
    assert torch.equal(groups.labels[groups.class_of], labels)
    first = 0
    for group in groups.groups:
        assert torch.equal(group, group.sort(dim=1).values)
        numbers = torch.arange(first, first + len(group)).unsqueeze(1)
        assert torch.equal(groups.class_of[group], numbers.expand_as(group))
        first += len(group)


def test_positive_pairs(labels):
    anchor, positive = (x.tolist() for x in class_groups(labels).positive_pairs())
    expected = [
        (i, j)
        for i in range(len(labels))
        for j in range(i + 1, len(labels))
        if labels[i] == labels[j]
    ]
    assert sorted(zip(anchor, positive, strict=True)) == expected


def test_first_pairs(labels):
    expected = []
    for label in labels.unique():
        rows = torch.where(labels == label)[0].tolist()
        if len(rows) > 1:
            expected.append(rows[:2])
    assert sorted(class_groups(labels).first_pairs().tolist()) == sorted(expected)


@pytest.mark.parametrize("pairing", ["all", "ring", "none"])
class TestPool:
    def test_by_source_then_by_axis(self, labels, pairing):
        source, axis = class_groups(labels).source_and_axis(pairing)
        assert torch.equal(labels[source], labels[axis])
        pairs = list(zip(source.tolist(), axis.tolist(), strict=True))
        assert pairs == sorted(set(pairs))
        assert all(i != j for i, j in pairs)

    def test_numbers_of_the_points_of_each_class(self, labels, pairing):
        """One numbering: that of the synthesizer's pool."""
        groups = class_groups(labels)
        pool = SymmSynthesizer(pairing=pairing)(torch.randn(len(labels), 2), labels)
        numbers = groups.point_numbers(pairing)
        assert numbers.sort().values.tolist() == list(range(len(pool.labels)))
        # Points are sorted by class.
        of_point = groups.class_of[pool.nearest_original[numbers]]
        assert torch.equal(of_point, of_point.sort().values)
        assert torch.equal(pool.labels[numbers], groups.labels[of_point])


def test_groups_of_a_part_of_the_batch():
    labels = torch.tensor([4, 7, 4, 9, 7])
    pairs = ClassGroups((torch.tensor([[1, 4]]),), labels)
    source, axis = pairs.source_and_axis("all")
    assert (source.tolist(), axis.tolist()) == ([1, 4], [4, 1])
    # The two originals, and their mirror images behind all five rows.
    assert sorted(pairs.point_numbers("all").tolist()) == [1, 4, 5, 6]
