"""PML's CrossBatchMemory, so that a run that was stopped goes on with its queue."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning import losses


class CrossBatchMemory(losses.CrossBatchMemory):
    """PML's, with its place in the queue in the state, beside what is queued.

    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    def get_extra_state(self) -> dict[str, Any]:
        """What state_dict has beside the buffers."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what get_extra_state gave."""
        self.queue_idx = state["queue_idx"]
        self.has_been_filled = state["has_been_filled"]
