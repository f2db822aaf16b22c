"""The accuracy of a trunk's features before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.stem_features import keep_stem
from ..models import trunks
from ..reporting import tables
from ..training.evaluator import CLUSTERING, RETRIEVAL, accuracy_calculator
from .command import Configured


@dataclass(frozen=True, kw_only=True)
class Features(Configured):
    """Test the features of a pre-trained trunk, without any training.

    Compare a table of trained methods with this: a run that ends below it has made the
    features worse. The result depends neither on a seed nor on a method.
    """

    out: Path = Path("runs/features")

    def run(self) -> tuple[str, Path]:
        """Compute the features, keep them like those of frozen stages, and test them.

        Raises:
            ValueError: the trunk is not pre-trained, or settings are invalid.
        """
        settings = self.settings_of(method="N-pairs", seed=0)
        if not settings.is_pretrained:
            raise ValueError(
                "the trunk must be pre-trained, or its features are those of random "
                f"weights, got trunk={settings.trunk!r} and pretrained="
                f"{settings.pretrained}"
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trunk = trunks.make_trunk(settings.trunk, size=settings.image_size)
        splits = self.source.splits(settings, trunk)
        stem, _ = trunks.freeze_until(trunk, len(trunk.stages))
        # Skip the training pictures: several versions of each would be computed.
        tested = splits._replace(train=splits.test, val=splits.test)
        test = keep_stem(tested, stem, device=device, workers=self.source.workers).test
        features = torch.stack([test[row][0] for row in range(len(test))])
        found = accuracy_calculator(RETRIEVAL + CLUSTERING, device).get_accuracy(
            nn.functional.normalize(features), test.labels
        )
        percent = [f"{100 * found[metric]:.1f}" for metric in tables.COLUMNS]
        text = tables.write(
            self.out / "table.md",
            f"Percent on {len(np.unique(test.labels)):,} unseen classes "
            f"({len(test):,} items) of {settings.data or settings.dataset}: features "
            f"of {settings.trunk} before any training, normalized.",
            tables.markdown([[*tables.COLUMNS.values()], percent]),
            f"Machine: {tables.machine()}.",
        )
        return text, self.out
