"""H(u, v) from materialized points: sixteen products where the library needs one.

pml_symm/hardest_pair.py is compared with this: the same losses with another search.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from pml_symm import selection
from pml_symm.hardest_pair import HardestPair
from pml_symm.point_weights import Points


def hardest_pair(
    rows: Points, columns: Points, rank: int = 1, ceiling: Tensor | None = None
) -> HardestPair:
    """As pml_symm.hardest_pair, with a matrix product for every two kinds of points."""
    if rank != 1 or ceiling is not None or rows.bias is not None:
        raise ValueError("only the hardest pair, by dot products")
    row_points = (rows.weights @ rows.members).unbind(1)
    column_points = (columns.weights @ columns.members).unbind(1)
    products = torch.stack([x @ y.t() for x in row_points for y in column_points])
    score, place = products.max(dim=0)
    k = torch.div(place, len(column_points), rounding_mode="floor")
    return HardestPair(score, torch.stack([k, place - k * len(column_points)]))


@contextmanager
def materialized() -> Iterator[None]:
    """Make the losses of pml_symm use materialized points inside the block."""
    with mock.patch.object(selection, "hardest_pair", hardest_pair):
        yield
