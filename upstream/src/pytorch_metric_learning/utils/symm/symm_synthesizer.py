"""SymmSynthesizer: the synthetic points of a batch."""

import torch

from .. import common_functions as c_f
from .. import loss_and_miner_utils as lmu
from ..module_with_records import ModuleWithRecords
from .synthetic_batch import SyntheticBatch


class SymmSynthesizer(ModuleWithRecords):
    """Mirrors the points of a class in each other and appends the images to the batch.

    Args:
        alpha: similarity ratio, positive
        beta: norm ratio, positive
        pairing: options are "all", "ring" or "none".
                "all" mirrors every ordered pair of a class
                "ring" mirrors each point about the next one of its class
                "none" mirrors nothing
    """

    def __init__(self, alpha=2.0, beta=1.0, pairing="all"):
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            if isinstance(value, bool) or not 0 < value < float("inf"):
                raise ValueError(
                    f"{name} must be a finite positive number, got {value!r}"
                )
        if pairing not in ("all", "ring", "none"):
            raise ValueError(
                f"pairing must be one of 'all', 'ring', 'none', got {pairing!r}"
            )
        self.alpha = alpha
        self.beta = beta
        self.pairing = pairing
        self.add_to_recordable_attributes(list_of_names=["alpha", "beta"])

    def forward(self, embeddings, labels, indices_tuple=None):
        """Returns a SyntheticBatch.

        Args:
            embeddings: tensor of size (batch_size, embedding_size)
            labels: tensor of size (batch_size)
            indices_tuple: the output of a miner. Then only its positive pairs are
                        mirrored, each point about the other.
        """
        c_f.check_shapes(embeddings, labels)
        if not embeddings.is_floating_point():
            raise TypeError(f"embeddings must be floating, got {embeddings.dtype}")
        labels = c_f.to_device(labels, embeddings)
        source, axis = self.source_and_axis(labels, indices_tuple)
        with torch.autocast(embeddings.device.type, enabled=False):
            synthetic = self.reflect(embeddings[source], embeddings[axis])
            points = torch.cat([embeddings, synthetic])
        return SyntheticBatch(points, torch.cat([labels, labels[source]]), source, axis)

    def source_and_axis(self, labels, indices_tuple=None):
        """Returns the indices of the points to mirror, and of those to mirror about."""
        if self.pairing == "none":
            nothing = torch.empty(0, dtype=torch.long, device=labels.device)
            return nothing, nothing
        if indices_tuple is not None:
            a, p = (
                x.to(labels.device) for x in lmu.pos_pairs_from_tuple(indices_tuple)
            )
            if (labels[a] != labels[p]).any():
                raise ValueError("indices_tuple has positives of different classes")
            pairs = torch.stack([torch.cat([a, p]), torch.cat([p, a])])
            source, axis = torch.unique(pairs[:, pairs[0] != pairs[1]], dim=1)
            return source, axis
        source, axis, _, _ = lmu.get_all_pairs_indices(labels)
        if self.pairing == "ring":
            step = (axis - source) % max(len(labels), 1)
            shortest = torch.full_like(labels, len(labels), dtype=torch.long)
            shortest = shortest.scatter_reduce(0, source, step, "amin")
            keep = step == shortest[source]
            source, axis = source[keep], axis[keep]
        return source, axis

    def reflect(self, source, axis):
        """Returns beta * (alpha * r - source), r being the projection on the axis."""
        dtype = source.dtype
        source, axis = (
            x.to(torch.promote_types(x.dtype, torch.float32)) for x in (source, axis)
        )
        # The projection does not depend on the axis's length: after this division,
        # squares do not overflow or underflow. On an axis of length zero it is 0.
        floor = torch.finfo(axis.dtype).tiny ** 0.5
        axis = axis / axis.detach().abs().amax(-1, keepdim=True).clamp_min(floor)
        squared_norm = (axis * axis).sum(-1, keepdim=True).clamp_min(1)
        r = (source * axis).sum(-1, keepdim=True) / squared_norm * axis
        return (self.beta * ((self.alpha - 1) * r + (r - source))).to(dtype)

    def extra_repr(self):
        """Shows the arguments in the module's repr."""
        return f"alpha={self.alpha}, beta={self.beta}, pairing={self.pairing!r}"
