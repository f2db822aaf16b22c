"""The command line: python -m benchmarks --help."""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .data import datasets
from .experiments.experiment import (
    ABLATIONS,
    DEMO_METHODS,
    PAPER_METHODS,
    SYNTHETICS_METHODS,
    experiment,
    of_methods,
    regimes,
)
from .experiments.reality_check import LEARNING_RATES, reality_check
from .experiments.soak import soak
from .experiments.visualize import visualize
from .methods.methods import METHODS
from .models import trunks
from .reporting.report import report
from .speed.speed import speed
from .training import processes
from .training.settings import Settings, Source

PRESETS = Path(__file__).parent / "presets"
_COMMANDS: dict[str, Callable[..., str]] = {
    "speed": speed,
    "visualize": visualize,
    "reality-check": reality_check,
    "soak": soak,
    "report": report,
}


def parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    """The parser of all sub-commands, and these."""
    main = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Benchmarks of pml_symm on PML's own trainers and testers.",
    )
    commands = main.add_subparsers(dest="command", required=True)
    _add_experiments(commands)
    _add_visualize(commands)
    _add_speed(commands)
    _add_soak(commands)
    _add_report(commands)
    return main, commands


def _command(
    commands: argparse._SubParsersAction, name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def _add_experiments(commands: argparse._SubParsersAction) -> None:
    again = (
        " Runs that are finished are not trained again, and one that was stopped goes on "
        "where it was, or after its last validation."
    )
    for name, methods, summary, description in (
        (
            "demo",
            DEMO_METHODS,
            "base losses against Symm on the embedded glyphs, in a few minutes",
            "Train the base losses and their Symm versions on glyphs, test them on unseen "
            "classes, and write tables and figures.",
        ),
        (
            "compare",
            tuple(METHODS),
            "any methods",
            "Train methods, test them on unseen classes, and write tables and figures; "
            "each method is compared with its base loss, paired by seed.",
        ),
        (
            "paper-table",
            PAPER_METHODS,
            "the rows of the paper's tables, beside its numbers",
            "As compare, for the methods of the paper's Tables 1 to 3, with the published "
            "recall@1 beside what is measured. --preset paper has the paper's setting for "
            "photographs.",
        ),
        (
            "synthetics",
            SYNTHETICS_METHODS,
            "do synthetic points keep their class, and how often do they win",
            "As compare, for Symm methods: recall@1 of synthetic points that ask for "
            "originals, and the share of selected negatives that are synthetic, over "
            "training.",
        ),
    ):
        add = _command(commands, name, summary, description + again)
        add.set_defaults(published=name == "paper-table")
        _add_runs(add, f"runs/{name}")
        _add_methods(add, methods)
        _add_synthesis(add)
    when = _command(
        commands,
        "regimes",
        "when does Symm help: starts of the trunk, and numbers of classes",
        "Base against Symm on glyphs, with the trunk from scratch or pre-trained with "
        "softmax on classes that nothing else sees, and with 100, 400 or all training "
        "classes." + again,
    )
    _add_runs(when, "runs/regimes")
    _add_methods(when, DEMO_METHODS)
    ablate = _command(
        commands,
        "ablate",
        "the paper's ablations on the glyphs",
        "Vary one thing of the synthesis, and compare each value with the base loss, "
        "paired by seed. Each ablation has a folder of its own in the output folder."
        + again,
    )
    ablate.add_argument("ablation", choices=ABLATIONS, help="what to vary")
    _add_runs(ablate, "runs/ablate")
    reality = _command(
        commands,
        "reality-check",
        "the protocol of Musgrave et al., ECCV 2020",
        "Choose each method's learning rate by the mean MAP@R of four class-disjoint "
        "validation folds, then test the four models once." + again,
    )
    _add_runs(reality, "runs/reality-check", seeds=False)
    _add_methods(reality, DEMO_METHODS)
    reality.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        default=list(LEARNING_RATES),
        help="what is tried, equally for every method",
    )
    reality.add_argument("--seed", type=int, default=0, help="of splits and weights")


def _add_methods(add: argparse.ArgumentParser, methods: Sequence[str]) -> None:
    add.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(methods),
        metavar="METHOD",
        help=f"any of: {'; '.join(METHODS)}",
    )


def _add_synthesis(add: argparse.ArgumentParser) -> None:
    for name in ("alpha", "beta"):
        _add_setting(add, name, float, "of SymmSynthesizer, for Symm methods")
    add.add_argument(
        "--pairing", choices=("all", "ring"), default="all", help="of SymmSynthesizer"
    )
    add.add_argument(
        "--hardness",
        type=lambda text: int(text) if text.isdigit() else text,
        default="hardest",
        help='"hardest", or k for the k-th hardest candidate, for Symm methods',
    )
    add.add_argument(
        "--candidates",
        choices=("all", "official"),
        default="all",
        help="of Symm + N-pairs and Symm + Angular",
    )


def _add_runs(add: argparse.ArgumentParser, out: str, seeds: bool = True) -> None:
    add.add_argument("--out", type=Path, default=Path(out), help="output folder")
    if seeds:
        add.add_argument(
            "--seeds",
            nargs="+",
            type=int,
            default=[0, 1, 2],
            help="one run a method for each",
        )
    add.add_argument("--force", action="store_true", help="train finished runs again, too")
    add.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; they share the cores"
    )
    add.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, and stop"
    )
    for name, kind, text in (
        ("steps", int, "batches to train on"),
        ("test_interval", int, "validate every so many steps; divides steps"),
        ("batch_size", int, "images in a batch"),
        ("m", int, "images of a class in a batch"),
        ("embedding_size", int, "dimensions of the embedding"),
        ("width", int, "channels of the trunk's first block"),
        ("learning_rate", float, "of Adam"),
        ("head_factor", float, "the embedder's learning rate in units of the trunk's"),
        ("lr_step_size", int, "halve the learning rates every so many steps"),
        ("max_classes", int, "use so many classes of each split only"),
    ):
        if seeds or name != "learning_rate":
            _add_setting(add, name, kind, text)
    add.add_argument(
        "--dataset",
        choices=datasets.NAMES,
        default="glyphs",
        help="glyphs need no download; folder is any folder of class folders",
    )
    add.add_argument("--data-root", type=Path, help="folder of a dataset of photographs")
    add.add_argument(
        "--download", action="store_true", help="fetch it if that folder is empty"
    )
    add.add_argument(
        "--workers", type=int, default=0, help="processes that load images for a run"
    )
    add.add_argument(
        "--skip-bad-images",
        action="store_true",
        help="leave out images that cannot be read, and record which",
    )
    add.add_argument(
        "--trunk",
        choices=trunks.NAMES,
        default="convnet",
        help="convnet for glyphs; the others come from torchvision",
    )
    add.add_argument(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start torchvision's trunks with ImageNet weights",
    )
    add.add_argument(
        "--preset",
        choices=sorted(path.stem for path in PRESETS.glob("*.json")),
        help="take the settings of a file in benchmarks/presets; flags go before them",
    )


def options_of(arguments: Sequence[str] | None) -> dict[str, Any]:
    """The options: what was given, else the preset's, else the defaults."""
    main, commands = parser()
    options = vars(main.parse_args(arguments))
    preset = options.pop("preset", None)
    if preset is None:
        return options
    settings = json.loads((PRESETS / f"{preset}.json").read_text())
    commands.choices[options["command"]].set_defaults(**settings)
    options = vars(main.parse_args(arguments))
    del options["preset"]
    return options


def _add_setting(add: argparse.ArgumentParser, name: str, kind: type, text: str) -> None:
    add.add_argument(
        f"--{name.replace('_', '-')}",
        type=kind,
        default=Settings.__dataclass_fields__[name].default,
        help=text,
    )


def _add_visualize(commands: argparse._SubParsersAction) -> None:
    add = _command(
        commands,
        "visualize",
        "originals and synthetic points while an embedding trains",
        "Train Symm + N-pairs on a few characters, and draw originals and "
        "synthetic points in the colours of their classes: an animated GIF of a 2-d "
        "embedding, and t-SNE maps of one with more dimensions.",
    )
    add.add_argument(
        "--out", type=Path, default=Path("runs/visualize"), help="output folder"
    )
    for name, default, text in (
        ("classes", 8, "characters"),
        ("steps", 120, "batches to train on"),
        ("frames", 40, "of the animation"),
        ("maps", 3, "t-SNE maps, the first before training"),
        ("embedding-size", 64, "dimensions of the embedding that t-SNE maps"),
        ("seed", 0, "of characters, weights and batches"),
    ):
        add.add_argument(f"--{name}", type=int, default=default, help=text)


def _add_speed(commands: argparse._SubParsersAction) -> None:
    add = _command(
        commands,
        "speed",
        "what the losses cost, against PML's own",
        "Time forward and backward passes of the losses and the miner against "
        "PML's own losses, against the same losses on synthetic points that are made, and "
        "against the floor: a product of the batch with itself and one more.",
    )
    add.add_argument("--out", type=Path, default=Path("runs/speed"), help="output folder")
    add.add_argument(
        "--batches", nargs="+", type=int, default=[128, 512, 2048, 8192], help="batch sizes"
    )
    add.add_argument("--embedding-size", type=int, default=512, help="dimensions")
    add.add_argument(
        "--seconds", type=float, default=5.0, help="how long to repeat each comparison"
    )
    add.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where")


def _add_soak(commands: argparse._SubParsersAction) -> None:
    add = _command(
        commands,
        "soak",
        "a long run in one process: does memory stay flat",
        "Train for long in one process, and write what it holds after each validation: "
        "memory, open files, threads. Needs Linux.",
    )
    add.add_argument("--out", type=Path, default=Path("runs/soak"), help="output folder")
    add.add_argument("--steps", type=int, default=20_000, help="batches to train on")
    add.add_argument(
        "--test-interval", type=int, default=500, help="validate every so many steps"
    )
    add.add_argument(
        "--method", choices=METHODS, default="Symm + N-pairs", help="what to train"
    )
    add.add_argument("--force", action="store_true", help="start again")


def _add_report(commands: argparse._SubParsersAction) -> None:
    add = _command(
        commands,
        "report",
        "one HTML file of all runs",
        "Write one HTML file, which needs no network: tables that sort, base against Symm, "
        "learning curves, shares of synthetic negatives, speed, and an interactive t-SNE "
        "map of test embeddings.",
    )
    add.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="output folders of the other commands; none: all in runs",
    )
    add.add_argument("--out", type=Path, default=Path("runs/report.html"), help="the file")
    add.add_argument("--speed", type=Path, help="a speed.csv; none: runs/speed/speed.csv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; returns the exit status."""
    # PML formats its loss tensor for the progress bar, which torch warns about.
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
    options = options_of(arguments)
    command = options.pop("command")
    if command == "ablate":
        ablation = options.pop("ablation")
        options["out"] /= ablation
        options["variants"] = ABLATIONS[ablation]
    elif command == "regimes":
        options["variants"] = regimes(options.pop("methods"))
    elif command not in _COMMANDS:
        options["variants"] = of_methods(options.pop("methods"))
    if "data_root" in options:
        options["source"] = Source(
            options.pop("data_root"),
            options.pop("download"),
            options.pop("workers"),
            options.pop("skip_bad_images"),
        )
    with processes.joined():
        return _run(_COMMANDS.get(command, experiment), options)


def _run(command: Callable[..., str], options: dict[str, Any]) -> int:
    try:
        text = command(**options)
    except (ValueError, OSError, ImportError, sqlite3.Error) as error:
        if processes.is_first():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if processes.is_first():
            print("\nstopped; the same command goes on where it was", file=sys.stderr)
        # As a shell tells which signal ended a program.
        return 128 + getattr(stop, "number", signal.SIGINT)
    if not processes.is_first():
        return 0
    print(f"\n{text}")
    if not options.get("dry_run"):
        print(f"Written to {options['out']}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
