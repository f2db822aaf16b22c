"""H(u, v) from points that are made: sixteen products where the library needs one.

What pml_symm/gram.py is measured against: the same losses on another core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from pml_symm import class_hardness
from pml_symm.functional import reflect
from pml_symm.gram import Selected
from pml_symm.kinds import Kinds, Setting


def hardest_between(
    rows: Tensor, columns: Tensor, row_kinds: Kinds, column_kinds: Kinds, setting: Setting
) -> Selected:
    """As pml_symm.gram.hardest_between, by a matrix product for every two kinds."""
    if setting.normalize:
        rows = torch.nn.functional.normalize(rows, dim=2)
        columns = torch.nn.functional.normalize(columns, dim=2)
    row_points = _points(rows, row_kinds, setting)
    column_points = _points(columns, column_kinds, setting)
    products = torch.stack([x @ y.t() for x in row_points for y in column_points])
    similarity, winner = products.max(dim=0)
    return Selected(similarity, rows @ rows.mT, winner)


def hardest_within(
    members: Tensor,
    kinds: Kinds,
    setting: Setting,
    distances: bool = False,
    keep_winners: bool = False,
) -> Selected:
    """As pml_symm.gram.hardest_within, likewise."""
    selected = hardest_between(members, members, kinds, kinds, setting)
    if not distances:
        return selected
    unit = torch.nn.functional.normalize(members, dim=2) if setting.normalize else members
    return selected._replace(within=(unit.unsqueeze(1) - unit.unsqueeze(2)).norm(dim=3))


def _points(members: Tensor, kinds: Kinds, setting: Setting) -> list[Tensor]:
    points = list(members.unbind(1))
    for source, axis in kinds.synthetic:
        points.append(reflect(points[source], points[axis], setting.alpha, setting.beta))
    return [torch.stack([points[x] for x in terms]).sum(0) for terms in kinds.terms]


@contextmanager
def materialized() -> Iterator[None]:
    """The losses of pml_symm work on made points inside."""
    with mock.patch.multiple(
        class_hardness,
        hardest_within=hardest_within,
        hardest_between=hardest_between,
        supports=lambda kinds, setting: False,
    ):
        yield
