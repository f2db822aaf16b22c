"""The command line: its help, its errors, and its presets."""

import os
import subprocess
import sys

import pytest

from benchmarks.__main__ import main, parse
from benchmarks.commands import COMMANDS
from benchmarks.experiments.command import DEMO_METHODS, PRESETS, SYNTHETICS_METHODS
from benchmarks.methods.methods import METHODS
from benchmarks.training import processes
from benchmarks.training.settings import Settings


def refusal(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_a_command_it_says_what_there_is(capsys):
    error = " ".join(refusal([], capsys).replace("│", " ").split())
    assert all(name in error for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m benchmarks {name}" in shown
    assert "PATH" in shown  # of --out, or of a positional argument


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--dataset", "birds"], "birds"),
        (["demo", "--halve-after", "5"], "--halve-after"),
        (["demo", "--steps", "many"], "many"),
        (["ablate"], "similarity"),
        (["ablate", "everything"], "everything"),
        (["reality-check", "--learning-rate", "1"], "--learning-rate"),
    ],
)
def test_what_cannot_be_understood_is_named(arguments, message, capsys):
    assert message in refusal(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0", "-1"], "seed must be from 0 to 2^32 - 1, got -1"),
        (["--workers", "-1"], "workers must be at least 0, got -1"),
        (
            ["--data-root", "caf\udce9"],
            r"data_root must be a path in UTF-8, got 'caf",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_output_folder_that_is_not_utf_8_is_refused(capsys):
    assert main(["compare", "--out", "caf\udce9"]) == 2
    assert r"out must be a path in UTF-8, got 'caf\udce9'" in capsys.readouterr().err


def test_a_narrow_terminal_has_help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "5")
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    assert "--methods" in capsys.readouterr().out


def test_numbers_and_words_for_hardness():
    assert parse(["compare", "--hardness", "2"]).synthesis.hardness == 2
    assert parse(["compare", "--hardness", "hardest"]).synthesis.hardness == "hardest"


@pytest.mark.parametrize(("name", "preset"), PRESETS.items())
def test_presets_can_be_chosen_and_fit(name, preset):
    settings, *_ = preset
    lists = {x: y for x, y in preset._asdict().items() if type(y) is tuple}
    command = parse(["compare", "--preset", name])
    assert command.settings == settings
    for field, values in lists.items():
        assert getattr(command, field) == values
    own = vars(settings) | ({"dataset": "cub"} if name == "paper" else {})
    for method in command.methods:
        Settings(method, 0, **own)
    # Flags override a preset, and other commands use the fields that they have.
    flags = ["--seeds", "7", "--steps", "100", "--methods", "Triplet", "--learning-rates"]
    command = parse(["compare", *flags, "--preset", name])
    assert (command.seeds, command.settings.steps) == ((7,), 100)
    assert (command.methods, command.learning_rates) == (("Triplet",), ())
    command = parse(["reality-check", f"--preset={name}"])
    assert command.methods == lists.get("methods", DEMO_METHODS)
    assert command.settings.trunk == settings.trunk
    command = parse(["synthetics", f"--preset={name}"])
    assert command.methods == SYNTHETICS_METHODS


def test_the_help_of_a_preset_shows_its_settings(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--preset", "handwriting", "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: 'evaluation.*')" in shown


def test_an_unknown_preset_is_named_with_the_others(capsys):
    error = refusal(["compare", "--preset", "birds"], capsys)
    assert "birds" in error
    assert all(name in error for name in PRESETS)


def test_controls_are_beside_what_they_control():
    for name in ("texts", "emoji", "cars", "handwriting"):
        methods = parse(["compare", "--preset", name]).methods
        for method in methods:
            assert set(METHODS[method].bases) <= set(methods)


def test_a_world_without_a_rank_is_one_process(monkeypatch):
    for size in ("", "2"):
        monkeypatch.setenv("WORLD_SIZE", size)
        with processes.joined():
            assert processes.world_size() == 1


def test_a_closed_standard_error_and_too_few_steps_for_a_time(tmp_path):
    command = f"{sys.executable} -m benchmarks compare --out {tmp_path} --steps 1"
    command += " --test-interval 1 --batch-size 8 --max-classes 8 --width 2 --seeds 0"
    done = subprocess.run(
        f"{command} --methods N-pairs 2>&-", shell=True, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "| no time |" in done.stdout


def test_a_console_without_the_characters_of_a_table(tmp_path):
    """Even in an ASCII locale the files are UTF-8, and no character is lost."""
    command = [sys.executable, "-m", "benchmarks", "compare", "--out", str(tmp_path)]
    options = "--steps 2 --test-interval 1 --batch-size 8 --max-classes 8 --width 2"
    done = subprocess.run(
        [*command, *options.split(), "--seeds", "0", "--methods", "N-pairs"],
        env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mean ? standard deviation" in done.stdout
    assert "mean ± standard deviation" in (tmp_path / "table.md").read_text("utf-8")


def test_the_paper_preset_is_the_released_setting():
    found = PRESETS["paper"].settings
    assert (found.batch_size, found.m, found.embedding_size) == (128, 2, 512)
    assert (found.steps, found.learning_rate, found.lr_step_size) == (10_000, 1e-4, 5000)
    assert (found.weight_decay, found.head_factor, found.crop_cars) == (0.005, 1, True)
