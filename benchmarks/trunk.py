"""The demo's trunk: three convolutional blocks."""

from torch import nn


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
