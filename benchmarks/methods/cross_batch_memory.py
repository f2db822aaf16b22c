"""PML's CrossBatchMemory, so that a resumed run continues with its queue."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning import losses


class CrossBatchMemory(losses.CrossBatchMemory):
    """PML's CrossBatchMemory whose state also has the position in the queue.

    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    def get_extra_state(self) -> dict[str, Any]:
        """What state_dict has in addition to the buffers."""
        return {"queue_idx": self.queue_idx, "has_been_filled": self.has_been_filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from what get_extra_state returned."""
        self.queue_idx = state["queue_idx"]
        self.has_been_filled = state["has_been_filled"]
