"""The plan of the regimes: the starts of a trunk, and the comparisons."""

import pytest

from benchmarks.__main__ import main
from benchmarks.commands import Regimes
from benchmarks.training.settings import CommonSettings

METHODS = ["N-pairs", "Symm + N-pairs"]


@pytest.mark.parametrize(
    ("settings", "starts"),
    [
        ({}, {"from scratch", "pre-trained"}),
        ({"dataset": "folder"}, {"from scratch", "pre-trained"}),
        (
            {"dataset": "folder", "trunk": "efficientnet-lite0", "freeze_until": 11},
            {"from scratch", "pre-trained"},
        ),
        ({"dataset": "texts", "trunk": "minilm", "freeze_until": 8}, {"pre-trained"}),
    ],
)
def test_base_and_symm_start_alike(settings, starts):
    common = CommonSettings(**settings)
    command = Regimes(methods=METHODS, settings=common, train_classes=(100, 400))
    variants = command.variants()
    assert len(variants) == 2 * len(starts) * 3
    assert {label.split(", ")[-2] for label in variants} == starts
    for label, variant in variants.items():
        own = {**vars(common), **variant.settings}
        is_convnet = own["trunk"] == "convnet"
        assert own.get("reserve", False) == is_convnet
        assert own.get("augment", False) == (own["dataset"] == "glyphs")
        if is_convnet and "pre-trained" in label:
            assert (own["start"], own["learning_rate"]) == ("softmax", 1e-4)
            assert own["head_factor"] == 10
        else:
            assert own["learning_rate"] == common.learning_rate == 1e-3
            assert own["head_factor"] == common.head_factor == 1
        if "from scratch" in label:
            assert own["freeze_until"] == 0
            assert own.get("start") == "scratch" or not own["pretrained"]
        for base in variant.bases:
            if base in variants:
                assert variants[base].settings == variant.settings
                assert label.endswith(base.removeprefix("N-pairs"))


def test_numbers_of_classes_are_an_option(tmp_path, capsys):
    arguments = ["regimes", "--out", str(tmp_path), "--dry-run", "--seeds", "0"]
    arguments += ["--train-classes", "70", "--methods", "Triplet"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.count("to train") == 4
    assert "triplet-pre-trained-70classes-seed0" in shown
    assert main([*arguments[:-3], "9", *arguments[-2:]]) == 2
    assert "train_classes must be at least batch_size / m = 64" in capsys.readouterr().err
