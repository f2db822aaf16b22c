"""The command line: what it says, and what it refuses."""

import json

import pytest

from benchmarks.__main__ import PRESETS, main, parse
from benchmarks.commands import COMMANDS
from benchmarks.training.settings import CommonSettings, Settings


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
    assert "PATH" in shown  # of --out, or in its place


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


def test_numbers_and_words_for_hardness():
    assert parse(["compare", "--hardness", "2"]).synthesis.hardness == 2
    assert parse(["compare", "--hardness", "hardest"]).synthesis.hardness == "hardest"


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.json")), ids=lambda path: path.stem)
def test_presets_can_be_chosen_and_fit(path):
    settings = json.loads(path.read_text())
    command = parse(["compare", "--preset", path.stem])
    assert command.settings == CommonSettings(**settings)
    Settings("N-pairs", 0, **{"dataset": "cub", **settings})
