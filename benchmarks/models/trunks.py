"""The trunks by name."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import nn

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Name = Literal["convnet", "googlenet", "resnet50"]


def make_trunk(name: Name, width: int, pretrained: bool = True) -> tuple[nn.Module, int]:
    """A trunk, and how many features it gives.

    Args:
        name: "convnet" is for glyphs.
        width: channels of the convnet's first block.
        pretrained: with ImageNet weights, which torchvision downloads once.

    Raises:
        ValueError: an unknown name.
        ImportError: torchvision is needed and cannot be imported.
    """
    if name == "convnet":
        return small_convnet(width), 64 * width
    if name not in get_args(Name):
        raise ValueError(f"trunk must be one of {', '.join(get_args(Name))}, got {name!r}")
    models = _torchvision().models
    weights = "DEFAULT" if pretrained else None
    if name == "resnet50":
        trunk = models.resnet50(weights=weights)
    elif pretrained:
        trunk = models.googlenet(weights=weights)
    else:
        trunk = models.googlenet(weights=None, aux_logits=False, init_weights=True)
    features = trunk.fc.in_features
    trunk.fc = nn.Identity()
    return trunk, features


def small_convnet(width: int = 32) -> nn.Sequential:
    """Images of shape (B, 1, 32, 32) to features of shape (B, 64 * width).

    The last feature map is kept, not averaged: where the strokes are is what tells
    characters apart.
    """
    layers: list[nn.Module] = []
    channels = 1
    for out in (width, 2 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = out
    return nn.Sequential(*layers, nn.Flatten())


def _torchvision() -> Any:
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        # It raises RuntimeError where it was built for another torch.
        raise ImportError(
            "the trunks of photographs need a torchvision that fits the installed "
            f"torch: pip install 'pml-symm[images]' ({error})"
        ) from error
    return torchvision
