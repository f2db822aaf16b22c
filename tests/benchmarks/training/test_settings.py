"""Settings that contradict each other are refused before anything is trained."""

import pytest

from benchmarks.methods.methods import METHODS
from benchmarks.training.settings import Settings

FOLDER = {"dataset": "folder"}
CUB = {"dataset": "cub", "trunk": "resnet50"}
EFFICIENTNET = {"dataset": "folder", "trunk": "efficientnet-lite0"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trunk": "vgg"}, "trunk must be one of .* got 'vgg'"),
        ({"trunk": "resnet50"}, "got dataset='glyphs' and trunk='resnet50'"),
        ({"dataset": "birds"}, "dataset must be one of glyphs, cub, .* got 'birds'"),
        ({"dataset": "cub"}, "got dataset='cub' and trunk='convnet'"),
        ({"dataset": "texts"}, "got dataset='texts' and trunk='convnet'"),
        ({"dataset": "folder", "trunk": "minilm"}, "dataset='folder' and trunk='minilm'"),
        ({"dataset": "texts", "trunk": "minilm", "image_size": 9}, "image_size .* got 9"),
        ({"dataset": "texts", "trunk": "minilm", "pretrained": False}, "got False"),
        ({**FOLDER, "image_size": 64}, "image_size must be 32 for the convnet, got 64"),
        ({**FOLDER, "image_size": 0}, "image_size must be at least 1, got 0"),
        ({**FOLDER, "augmentations": 0}, "augmentations must be at least 1, got 0"),
        ({"crop_cars": True}, "crop_cars is for PML's .* got True for 'glyphs'"),
        ({"test_classes": "a*"}, r"test_classes is for folder and texts.* 'a\*'"),
        ({**CUB, "test_classes": "a*"}, r"test_classes is for .* 'a\*' for cub"),
        ({**EFFICIENTNET, "freeze_until": -1}, "freeze_until must be at least 0, got -1"),
        ({**EFFICIENTNET, "freeze_until": 1, "pretrained": False}, "is pre-trained, got 1"),
        ({**FOLDER, "freeze_until": 1}, "freeze_until needs a trunk that is pre-trained"),
        ({"freeze_until": 1}, "freeze_until is for datasets other than glyphs, got 1"),
        ({**EFFICIENTNET, "start": "softmax"}, "convnet, got 'efficientnet-lite0'"),
        ({"seed": -1}, "seed must be from 0 to .* got -1"),
        ({"m": 1}, "m must be at least 2 for N-pairs, .* got 1"),
        ({"m": 64, "batch_size": 64}, "batch_size must be at least 2 m = 128 .* got 64"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{"method": "N-pairs", "seed": 0, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        FOLDER,
        {**EFFICIENTNET, "image_size": 96, "freeze_until": 11},
        {**FOLDER, "start": "softmax", "reserve": True, "freeze_until": 1},
        {"dataset": "cars", "trunk": "timm:resnet18", "crop_cars": True},
        {"dataset": "cub", "trunk": "timm:resnet18", "crop_cars": True},  # of the preset
        {"dataset": "texts", "trunk": "sentence-encoder:some/name", "freeze_until": 7},
    ],
)
def test_what_fits(settings):
    Settings("N-pairs", 0, **settings)


@pytest.mark.parametrize("name", [name for name, x in METHODS.items() if x.needs_pairs])
def test_a_method_that_needs_pairs_gets_them(name):
    with pytest.raises(ValueError, match="m must be at least 2"):
        Settings(name, 0, m=1)
