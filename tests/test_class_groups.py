"""Which rows belong to which class."""

import pytest
import torch

from pml_symm import SymmSynthesizer
from pml_symm.class_groups import class_groups

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


def test_split(labels):
    groups = class_groups(labels)
    # Some classes do not occur, others occur twice.
    classes = torch.arange(groups.num_classes)[::2].repeat_interleave(2)
    parts = groups.split(classes)
    rows = [group[part, 0] for group, part in zip(groups.groups, parts, strict=True)]
    assert torch.equal(groups.class_of[torch.cat(rows)], classes)


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
def test_source_and_axis(labels, pairing):
    groups = class_groups(labels)
    source, axis = groups.source_and_axis(pairing)
    expected = SymmSynthesizer(pairing=pairing).source_and_axis(labels)
    rows = torch.arange(len(labels))
    assert torch.equal(labels[source], labels[axis])
    assert sorted(zip(source.tolist(), axis.tolist(), strict=True)) == sorted(
        zip(*(torch.cat([rows, x]).tolist() for x in expected), strict=True)
    )
    # Points are sorted by class.
    assert torch.equal(groups.class_of[source], groups.class_of[source].sort().values)
