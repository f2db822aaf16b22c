"""Checks of arguments, with errors that name the argument and show its value."""

from numbers import Integral, Real

import torch
from torch import Tensor


def check_hardness(hardness: object) -> None:
    """Raise ValueError unless it is "hardest", "semihard", an int >= 1, or a rule."""
    is_name = isinstance(hardness, str) and hardness in ("hardest", "semihard")
    # A SymmSynthesizer in the wrong place is callable, too.
    is_rule = callable(hardness) and not isinstance(hardness, torch.nn.Module)
    if not (is_name or is_count(hardness) or is_rule):
        raise ValueError(
            'hardness must be "hardest", "semihard", an int >= 1 or a rule, a function of '
            f"candidates, got {hardness!r}"
        )


def check_samples_per_class(samples_per_class: object) -> None:
    """Raise ValueError unless samples_per_class is None or an int >= 1."""
    if samples_per_class is not None and not is_count(samples_per_class):
        raise ValueError(
            f"samples_per_class must be None or an int >= 1, got {samples_per_class!r}"
        )


def is_count(value: object) -> bool:
    """Whether it is an integer >= 1, of Python or of NumPy.

    >>> import numpy as np
    >>> is_count(np.int64(2)), is_count(2.0), is_count(True), is_count(np.bool_(True))
    (True, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        )


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless value is of a kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def check_positive(**values: float) -> None:
    """Raise ValueError unless all values are finite positive numbers."""
    for name, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a finite positive number, got {value!r}")


def check_embeddings(embeddings: Tensor, name: str = "embeddings") -> None:
    """Raise unless embeddings is a floating tensor of shape (batch, embedding size)."""
    if not isinstance(embeddings, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(embeddings).__name__}")
    if not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(
        embeddings
    ):
        raise NotImplementedError(
            f"{name} cannot be batched by torch.func.vmap: the hardest points of classes "
            "differ from batch to batch; call once for each batch"
        )
    if not embeddings.is_floating_point():
        raise TypeError(f"{name} must be floating, got {embeddings.dtype}")
    if embeddings.ndim != 2:
        raise ValueError(
            f"{name} must be a 2D tensor of shape (batch_size, embedding_size), got "
            f"shape {tuple(embeddings.shape)}"
        )
    if embeddings.shape[1] == 0:
        raise ValueError(
            f"{name} must have at least one dimension per point, got shape "
            f"{tuple(embeddings.shape)}"
        )


def checked_labels(
    labels: Tensor, embeddings: Tensor, name: str = "labels", of: str = "embeddings"
) -> Tensor:
    """whole_labels; raises unless there is one label for each row of embeddings."""
    if labels is None:
        raise ValueError(f"{name} must be given, got None")
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(labels).__name__}")
    if labels.ndim != 1 or labels.shape[0] != embeddings.shape[0]:
        raise ValueError(
            f"{name} must be a 1D tensor of shape ({embeddings.shape[0]},), one label "
            f"for each row of {of}, got shape {tuple(labels.shape)}"
        )
    return whole_labels(labels, name)


def whole_labels(labels: Tensor, name: str = "labels") -> Tensor:
    """Integer labels as int64, which every operator takes; floating ones as they are.

    Raises:
        ValueError: a label is too large for int64.

    >>> whole_labels(torch.tensor([3, 1], dtype=torch.uint16))
    tensor([3, 1])
    """
    if labels.is_floating_point():
        return labels
    whole = labels.long()
    if labels.dtype == torch.uint64 and (whole < 0).any():
        raise ValueError(
            f"{name} must be at most {torch.iinfo(torch.int64).max}, got "
            f"{labels[int((whole < 0).nonzero()[0])].item()}"
        )
    return whole


def check_batch(
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    names: tuple[str, str] = ("ref_emb", "ref_labels"),
) -> tuple[Tensor, Tensor | None]:
    """Check what losses and miners share; the labels of both as whole_labels."""
    check_embeddings(embeddings)
    labels = checked_labels(labels, embeddings)
    if (ref_emb is None) != (ref_labels is None):
        given = names[ref_emb is None]
        raise ValueError(f"{names[0]} and {names[1]} go together, got only {given}")
    if ref_emb is None or ref_labels is None:
        return labels, None
    check_embeddings(ref_emb, names[0])
    ref_labels = checked_labels(ref_labels, ref_emb, names[1], names[0])
    if ref_emb.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"{names[0]} must have the embedding size of embeddings, got shapes "
            f"{tuple(ref_emb.shape)} and {tuple(embeddings.shape)}"
        )
    return labels, ref_labels


def check_pairs(pairs: object) -> None:
    """Raise ValueError unless pairs are None or two tensors."""
    several = list(pairs) if isinstance(pairs, tuple | list) else []
    if pairs is None or [isinstance(x, Tensor) for x in several] == [True, True]:
        return
    shown = f"{len(several)} values" if several else repr(pairs)
    raise ValueError(f"pairs must be two tensors, anchors and positives, got {shown}")


def checked_pairs(
    pairs: tuple[Tensor, Tensor],
    labels: Tensor,
    ref_labels: Tensor,
    name: str = "indices_tuple",
) -> tuple[Tensor, Tensor]:
    """Pairs as int64; raises unless rows of labels are paired with some of their class."""
    anchors, positives = (x.to(labels.device) for x in pairs)
    if anchors.shape != positives.shape or anchors.ndim != 1:
        raise ValueError(
            f"{name} must hold as many anchors as positives, got shapes "
            f"{tuple(anchors.shape)} and {tuple(positives.shape)}"
        )
    if len(anchors) == 0:
        return anchors.long(), positives.long()
    for index in (anchors, positives):
        if index.is_floating_point() or index.dtype == torch.bool:
            raise TypeError(f"{name} must hold integers, got {index.dtype}")
    anchors, positives = anchors.long(), positives.long()  # bytes would be masks
    for end, index, size in (
        ("an anchor", anchors, len(labels)),
        ("a positive", positives, len(ref_labels)),
    ):
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= size:
            raise ValueError(
                f"{name} has {end} at row {low if low < 0 else high}, but "
                f"there are {size} rows"
            )
    wrong = labels[anchors] != ref_labels[positives]
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} has a positive pair of different classes in rows "
            f"{int(anchors[at])} and {int(positives[at])}"
        )
    return anchors, positives
