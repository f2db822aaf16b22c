"""Curves over training: which runs have them."""

from benchmarks.reporting.figures import CURVES

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
