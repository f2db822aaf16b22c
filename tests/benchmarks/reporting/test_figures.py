"""Curves over training: which runs have them."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.reporting.figures import CURVES, draw_curve

(GRADIENT,) = (curve for curve in CURVES if curve.file == "gradient")


def run_of(*steps):
    curve = {"step": list(steps), "gradient_norm": [2.0] * len(steps)}
    return {"gradient_norm": curve}


def test_runs_that_lack_a_curve_are_left_out():
    assert GRADIENT.steps([run_of(0, 10), run_of(0, 10)]) == [0, 10]
    assert GRADIENT.steps([{}, {}]) == ()
    # One seed of an earlier version, in any place.
    for runs in ([run_of(0, 10), {}], [{}, run_of(0, 10)], [run_of(0, 10), run_of(0)]):
        assert len(GRADIENT.steps(runs)) == 0


def test_numbers_have_no_unit_and_are_no_shares():
    assert GRADIENT.label == "length of the gradient"
    assert GRADIENT.of([run_of(0, 10)]).tolist() == [[2, 2]]


@pytest.mark.parametrize("curve", CURVES, ids=lambda x: x.file)
def test_shares_are_in_percent(curve):
    runs = [{curve.series: {curve.values: values}} for values in ([0.25, None], [1, 0.5])]
    factor = 100 if "recall@1" in curve.title or "negatives" in curve.title else 1
    assert curve.label.endswith("(%)") == (factor == 100)
    expected = [[0.25 * factor, np.nan], [factor, 0.5 * factor]]
    np.testing.assert_array_equal(curve.of(runs), expected)


@pytest.mark.parametrize(("lines", "size"), [(0, (960, 600)), (7, (1500, 600))])
def test_many_lines_have_their_legend_beside_them(
    lines, size, full_size, monkeypatch, tmp_path
):
    monkeypatch.setattr(Figure, "savefig", full_size)
    path = tmp_path / "gradient.png"
    draw_curve({str(x): [run_of(0, 10)] for x in range(lines)}, {}, GRADIENT, path)
    with Image.open(path) as image:
        assert image.size == size


def test_no_two_of_eleven_losses_have_one_colour(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: drawn.extend(figure.axes))
    of_losses = {str(x): [run_of(0, 10)] for x in range(11)}
    draw_curve(of_losses, {}, GRADIENT, tmp_path / "gradient.png")
    assert len({line.get_color() for line in drawn[0].lines}) == 11


def test_the_first_base_that_is_drawn_is_the_dashed_one(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: drawn.extend(figure.axes))
    names = ["base", "control", "Symm", "official"]
    bases = dict.fromkeys(names[1:], ("not trained", "base"))
    draw_curve({x: [run_of(0, 10)] for x in names}, bases, GRADIENT, tmp_path / "a.png")
    styles = [line.get_linestyle() for line in drawn[0].lines]
    assert styles[0] == "--" and len(set(styles)) == 4
    assert len({line.get_color() for line in drawn[0].lines}) == 1
