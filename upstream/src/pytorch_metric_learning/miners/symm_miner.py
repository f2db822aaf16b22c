"""SymmMiner: the hardest original or synthetic point of every other class."""

import torch

from ..utils import loss_and_miner_utils as lmu
from ..utils.symm.symm_synthesizer import SymmSynthesizer
from .base_miner import BaseMiner


class SymmMiner(BaseMiner):
    """Mines the hardest points, synthetic ones included.

    Returns every positive pair, and for every embedding the hardest point of each
    other class. A synthetic point is returned as its axis, the nearer of the two
    originals of its pair.

    Args:
        hardness: options are "hardest", an int k, or "semihard".
                k means the k-th hardest point of each class, or its easiest
                "semihard" returns triplets: for every positive pair the hardest point
                of each other class that is farther from the anchor than the positive
        synthesizer: a SymmSynthesizer. None means SymmSynthesizer()
        index_space: options are "batch", or "pool" to return a synthetic point as its
                index in the output of the synthesizer
    """

    def __init__(
        self, hardness="hardest", synthesizer=None, index_space="batch", **kwargs
    ):
        super().__init__(**kwargs)
        if hardness not in ("hardest", "semihard") and (
            not isinstance(hardness, int) or isinstance(hardness, bool) or hardness < 1
        ):
            raise ValueError(
                f'hardness must be "hardest", "semihard" or an int >= 1, got {hardness!r}'
            )
        if index_space not in ("batch", "pool"):
            raise ValueError(
                f"index_space must be one of 'batch', 'pool', got {index_space!r}"
            )
        if synthesizer is None:
            synthesizer = SymmSynthesizer()
        if not isinstance(synthesizer, SymmSynthesizer):
            raise TypeError(
                f"synthesizer must be a SymmSynthesizer, got {type(synthesizer).__name__}"
            )
        self.hardness = hardness
        self.synthesizer = synthesizer
        self.index_space = index_space
        self.add_to_recordable_attributes(name="synthetic_ratio", is_stat=True)

    def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
        """Same as BaseMiner; ref_emb and ref_labels go together."""
        if (ref_emb is None) != (ref_labels is None):
            given = "ref_labels" if ref_emb is None else "ref_emb"
            raise ValueError(f"ref_emb and ref_labels go together, got only {given}")
        return super().forward(embeddings, labels, ref_emb, ref_labels)

    def mine(self, embeddings, labels, ref_emb, ref_labels):
        """Returns a1, p, a2, n, or a, p, n for hardness="semihard"."""
        a, p, _, _ = lmu.get_all_pairs_indices(labels, ref_labels)
        dtype = torch.promote_types(embeddings.dtype, torch.float32)
        with torch.autocast(embeddings.device.type, enabled=False):
            pool = self.synthesizer(ref_emb.to(dtype), ref_labels)
            mat = self.distance(embeddings.to(dtype), pool.embeddings)
        if not self.distance.is_inverted:
            mat = -mat

        classes, class_of, sizes = torch.unique(
            pool.labels, return_inverse=True, return_counts=True
        )
        # Sort the columns of every row by class, and within a class hardest first.
        order = torch.argsort(mat, dim=1, descending=True, stable=True)
        by_class = torch.argsort(class_of[order], dim=1, stable=True)
        order = order.gather(1, by_class)

        # How many points of each class come before the selected one.
        if self.hardness == "semihard":
            row_labels, order = labels[a], order[a]
            too_hard = ~(mat[a] < mat[a, p].unsqueeze(1))
            skipped = torch.zeros(len(a), len(classes), device=mat.device)
            skipped.index_add_(1, class_of, too_hard.float())
            skipped = skipped.long()
        else:
            k = 1 if self.hardness == "hardest" else self.hardness
            row_labels = labels
            skipped = (sizes.clamp_max(k) - 1).expand(len(labels), -1)

        keep = (skipped < sizes) & (row_labels.unsqueeze(1) != classes)
        row, column = torch.where(keep)
        n = order[row, (sizes.cumsum(0) - sizes)[column] + skipped[row, column]]
        if self.collect_stats:
            self.synthetic_ratio = pool.synthetic_ratio(n)
        if self.index_space == "batch":
            n = pool.nearest_original[n]
        if self.hardness == "semihard":
            return a[row], p[row], n
        return a, p, row, n
