"""Learning rates by validation classes: which are tried, chosen and reported."""

import csv
import shlex

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.experiments import search
from benchmarks.experiments.search import Trial
from benchmarks.methods.methods import METHODS
from benchmarks.training.records import read_all

TINY = shlex.split("--steps 2 --test-interval 1 --batch-size 8 --width 2 --max-classes 6")
RATES = ["--learning-rates", "0.001", "0.1"]


def trial(rate, *shares, **options):
    runs = [{"val": {"mean_average_precision_at_r": [0, share]}} for share in shares]
    return Trial({"learning_rate": rate, "trainer_options": options or None}, runs)


def test_each_method_is_trained_with_its_own_best_rate(tmp_path, capsys):
    arguments = ["compare", "--out", str(tmp_path), *TINY, *RATES, "--seeds", "0", "1"]
    arguments += ["--methods", "N-pairs", "Symm + N-pairs"]
    assert main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("to train") == 2 * 2 + 2 * 2
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Chosen among the learning rates 0.001, 0.1, by MAP@R" in shown
    assert "so a value beyond may be better: N-pairs (" in shown
    results = read_all(tmp_path / "records.db").values()
    searched = [x for x in results if not x["settings"]["touch_test"]]
    tested = [x for x in results if x["settings"]["touch_test"]]
    assert {x["settings"]["seed"] for x in searched} == {1000}
    assert all(x["test"] == {} for x in searched)
    assert [x["settings"]["seed"] for x in tested] == [0, 0, 1, 1]
    for method in ("N-pairs", "Symm + N-pairs"):
        reached = {
            x["settings"]["learning_rate"]: search.last_map(x)
            for x in searched
            if x["settings"]["method"] == method
        }
        assert len(reached) == 2
        (rate,) = {
            x["settings"]["learning_rate"]
            for x in tested
            if x["settings"]["method"] == method
        }
        assert reached[rate] == max(reached.values())
    with (tmp_path / "search.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == 2 * ["N-pairs"] + 2 * ["Symm + N-pairs"]
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")
    # All runs are finished now.
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("finished") == 8


def test_each_method_gets_the_best_of_all_combinations(tmp_path, capsys):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--seeds", "0", *RATES]
    arguments += ["--weight-decays", "0", "0.01", "--head-factors", "1", "10"]
    assert main([*arguments, "--methods", "Triplet"]) == 0
    shown = capsys.readouterr().out
    assert (
        "Chosen among the learning rates 0.001, 0.1 and the weight decays 0, 0.01 and the "
        "head factors 1, 10, by MAP@R" in shown
    )
    *searched, tested = read_all(tmp_path / "records.db").values()

    def choice(result):
        names = ("learning_rate", "weight_decay", "head_factor")
        return [result["settings"][name] for name in names]

    assert len({tuple(choice(x)) for x in searched}) == len(searched) == 8
    chosen = choice(max(searched, key=search.last_map))
    assert choice(tested) == chosen
    cells = " | ".join(f"{x:g}" for x in chosen)
    assert "|  | learning rate | weight decay | head factor | other |" in shown
    assert f"| Triplet | {cells} |" in shown
    with (tmp_path / "search.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    best = max(lines, key=lambda x: float(x["validation_mean_average_precision_at_r"]))
    names = ("learning_rate", "weight_decay", "head_factor")
    assert [float(best[name]) for name in names] == chosen


def test_what_a_search_chooses_otherwise_is_trained_again(tmp_path, capsys, caplog):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--seeds", "0"]
    arguments += ["--methods", "Triplet"]
    assert main([*arguments, "--learning-rates", "0.001"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--learning-rates", "0.1", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to train") == 1  # what it will choose is open
    assert main([*arguments, "--learning-rates", "0.1"]) == 0
    assert "triplet-seed0 starts again: the search chooses otherwise" in caplog.text
    results = read_all(tmp_path / "records.db").values()
    tested = [x for x in results if x["settings"]["touch_test"]]
    assert [x["settings"]["learning_rate"] for x in tested] == [0.1]
    # No search chose this, and it differs in more than a search can choose.
    for more in (["--learning-rate", "0.01"], ["--learning-rates", "0.1", "--m", "4"]):
        assert main([*arguments, *more]) == 2
        assert "holds a run with other settings" in capsys.readouterr().err


def test_folders_name_what_was_searched():
    choice = {"learning_rate": 1e-3, "trainer_options": None}
    assert search.name_of("N-pairs", choice, {}) == "N-pairs, rate = 0.001"
    choice |= {"weight_decay": 0.005, "head_factor": 10.0}
    assert search.name_of("N-pairs", choice, {"fold": 2}) == (
        "N-pairs, rate = 0.001, weight decay = 0.005, head factor = 10, fold = 2"
    )


def test_zero_is_no_end_because_nothing_is_below():
    trials = {
        "a": [
            Trial({**trial(0.1).choice, "weight_decay": decay}, trial(0.1, share).runs)
            for decay, share in ((0, 0.5), (0.01, 0.4))
        ]
    }
    assert search.at_the_edge(trials) == ""


@pytest.mark.parametrize("name", ["DAML + N-pairs", "HDML + Triplet"])
def test_what_others_have_to_tune_is_searched_for(name, tmp_path):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--seeds", "0", "--methods"]
    assert main([*arguments, name, "--learning-rates", "0.001"]) == 0
    *searched, tested = read_all(tmp_path / "records.db").values()
    ((option, values),) = METHODS[name].searched.items()
    tried = [x["settings"]["trainer_options"][option] for x in searched]
    assert tried == list(values)
    best = max(searched, key=search.last_map)
    assert tested["settings"]["trainer_options"] == best["settings"]["trainer_options"]


def test_the_best_mean_wins_and_an_end_is_named(tmp_path, monkeypatch):
    trials = {
        "inside": [trial(1e-3, 0.1, 0.2), trial(1e-2, 0.3, 0.3), trial(1e-1, 0.5, 0.0)],
        "at the end": [trial(1e-3, 0.4), trial(1e-2, 0.3), trial(1e-1, 0.1)],
        "one rate": [trial(1e-2, 0.4, alpha=a) for a in (1, 2)],
        "alpha": [trial(1e-2, 0.1 * a, alpha=a) for a in (1, 3, 2)],
    }
    assert search.choice_rows(trials)[1:] == [
        ["inside", "0.01", "", "30.0"],
        ["at the end", "0.001", "", "40.0"],
        ["one rate", "0.01", "alpha = 1", "40.0"],
        ["alpha", "0.01", "alpha = 3", "30.0"],
    ]
    named = search.at_the_edge(trials)
    assert named.endswith(
        ": at the end (learning rate = 0.001); one rate (alpha = 1); alpha (alpha = 3)."
    )
    assert search.at_the_edge({"inside": trials["inside"]}) == ""
    drawn = {}
    monkeypatch.setattr(search.figures, "draw_lines", lambda x, *_: drawn.update(x))
    search.draw(trials, {}, tmp_path)
    rates, shares = drawn["alpha"]  # of one rate, the best of its trials
    assert (rates, shares) == ([1e-2], pytest.approx(np.array([[30.0]])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*RATES, "--search-seeds", "0"], "none of seeds = [0, 1, 2], got [0]"),
        ([*RATES, "--search-seeds", "7", "7"], "got [7, 7]"),
        (
            ["--learning-rates", "0.1", "0.1"],
            "learning_rates must be at least one, all different, got [0.1, 0.1]",
        ),
        (
            [*RATES, "--weight-decays", "0", "0"],
            "weight_decays must be at least one, all different, got [0.0, 0.0]",
        ),
        (["--learning-rates", "1.0000001", "1"], "all different, got [1.0000001, 1.0]"),
        (["--head-factors", "1"], "learning_rates must be at least one"),
        ([*RATES, "--weight-decays", "-1"], "weight_decay must be a finite number >= 0"),
        (["--learning-rates", "-1"], "learning_rate must be a finite positive number"),
        ([*RATES, "--learning-rate", "0.5"], "--learning-rate is not used where"),
        (["--data-root", "pictures"], "--data-root is for datasets in files, got pictures"),
    ],
)
def test_a_search_that_cannot_be_is_refused(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_option_that_every_variant_has_itself_is_refused(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["ablate", "pairing", "--m", "4", "--out", str(out)]) == 2
    assert "--m is not used: every variant has its own, got 4" in capsys.readouterr().err
    assert not out.exists()
