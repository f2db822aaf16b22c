"""One HTML file of all runs: sortable tables, curves, and a map of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from ..data.files import written_whole
from ..training import records
from . import convergence, finished_runs, tables
from .figures import CURVES
from .finished_runs import FinishedRuns, read
from .map_plot import map_plot
from .plots import Plot, curve_plot, difference_plot, speed_plot


def report(out: Path, runs: Sequence[Path] = (), speed: Path | None = None) -> str:
    """Write a report of output folders.

    Args:
        out: the HTML file to write.
        runs: output folders of the other commands; by default all in "runs" that have
            finished runs.
        speed: a speed.csv; by default runs/speed/speed.csv, if it exists.

    Returns:
        A summary of its contents.

    Raises:
        ValueError: out is a folder, a folder has no finished runs, or there are none at
            all.
    """
    if out.is_dir():
        raise ValueError(f"out must be a file, got the folder {out}")
    databases = sorted(Path("runs").glob(f"**/{records.DATABASE}"))
    experiments = []
    for folder in finished_runs.different(runs) or [path.parent for path in databases]:
        experiment = read(folder)
        if experiment.variants:
            experiments.append(experiment)
        elif runs:
            raise ValueError(
                f"{folder} holds no runs that are finished"
                f"{finished_runs.is_missing(folder)}"
            )
    if not experiments:
        raise ValueError("no finished runs in runs: train some, or name their folder")
    if speed is None:
        speed = Path("runs", "speed", "speed.csv")
        speed = speed if speed.exists() else None
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page = environment.get_template("report.html.jinja").render(
        experiments=[
            (
                x,
                f"{convergence.sentence(x.variants)} {x.diverged}".strip(),
                tables.accuracy_rows(x.variants),
                _plots(x),
            )
            for x in experiments
        ],
        maps=[(x.name, map_plot(x)) for x in experiments if x.maps],
        speed=speed_plot(speed) if speed else None,
        plotly=get_plotlyjs(),
    )
    with written_whole(out) as file:
        file.write(page.encode())
    counts = [
        f"{x.name}: {len(x.variants)} variants, {sum(map(len, x.variants.values()))} runs"
        for x in experiments
    ]
    return "\n".join(counts) + "\n"


def _plots(runs: FinishedRuns) -> list[Plot]:
    plots = [difference_plot(runs), *(curve_plot(runs, curve) for curve in CURVES)]
    return [x for x in plots if x is not None]
