"""python -m benchmarks report: what is in the file, and how it behaves in a browser."""

import base64
import csv
import html
import io
import json
import re
import shutil
import sqlite3
from collections import Counter
from dataclasses import asdict
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.manifold import TSNE

from benchmarks.__main__ import main
from benchmarks.commands import ABLATIONS
from benchmarks.reporting import report, tables
from benchmarks.reporting.figures import CURVES
from benchmarks.reporting.finished_runs import FinishedRuns, read
from benchmarks.reporting.report import curve_plot, difference_plot, map_plot, speed_plot
from benchmarks.training import evaluator, records
from benchmarks.training.run import run
from benchmarks.training.settings import Settings

ROOT = Path(__file__).parents[3]
TINY = ["--steps", "4", "--test-interval", "2", "--batch-size", "8", "--width", "2"]
SPEED = ROOT / "docs" / "speed" / "speed.csv"
MARKUP = "<script>alert(1)</script>"
FOLDER_OF_MARKUP = "<img src=x onerror=alert(2)>"


@pytest.fixture(autouse=True, scope="module")
def _short_tsne():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "TSNE", partial(TSNE, max_iter=250))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    arguments = ["demo", "--out", str(out), *TINY, "--max-classes", "30"]
    assert main([*arguments, "--seeds", "0", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(runs), "--out", str(path), "--speed", str(SPEED)]) == 0
    return path


def test_variants_and_their_bases(runs):
    experiment = read(runs)
    assert experiment.name == "demo"
    assert experiment.bases["Symm + Triplet"] == ("Triplet",)
    assert experiment.bases["Triplet"] == ()
    assert [len(x) for x in experiment.variants.values()] == [2, 2, 2, 2]
    assert set(experiment.maps) == set(experiment.variants)


def test_variants_of_an_ablation_are_told_apart(tmp_path, monkeypatch):
    results = {
        label: {
            "settings": asdict(Settings(variant.method, 0, **variant.settings)),
            "test": {"recall_at_1": 0.5},
        }
        for label, variant in ABLATIONS["pairing"].items()
    }
    monkeypatch.setattr(records, "read_all", lambda database: results)
    assert read(tmp_path).bases == {
        "Triplet, m = 2": (),
        "Symm + Triplet, m = 2, pairing = all": ("Triplet, m = 2",),
        "Triplet, m = 4": (),
        "Symm + Triplet, m = 4, pairing = all": ("Triplet, m = 4",),
        "Symm + Triplet, m = 4, pairing = ring": ("Triplet, m = 4",),
        "Triplet, m = 8": (),
        "Symm + Triplet, m = 8, pairing = all": ("Triplet, m = 8",),
        "Symm + Triplet, m = 8, pairing = ring": ("Triplet, m = 8",),
    }


def test_of_two_choices_of_a_search_the_last_counts(tmp_path, monkeypatch):
    results = {
        f"fold {fold}, rate {rate}": {
            "settings": asdict(Settings("Triplet", 0, fold=fold, learning_rate=rate)),
            "test": {"recall_at_1": 0.5},
        }
        for rate in (0.1, 0.001)
        for fold in (1, 0)
    }
    monkeypatch.setattr(records, "read_all", lambda database: results)
    (own,) = read(tmp_path).variants.values()
    found = [(x["settings"]["fold"], x["settings"]["learning_rate"]) for x in own]
    assert found == [(0, 0.001), (1, 0.001)]


def test_controls_have_base_steps_and_bases_have_not(tmp_path, monkeypatch):
    names = "Triplet", "Triplet, hardest originals", "Symm + Triplet"
    results = {
        f"{name} {steps}": {
            "settings": asdict(Settings(name, seed, base_steps=steps)),
            "test": {"recall_at_1": 0.5},
        }
        for seed, steps in enumerate((0, 50))
        for name in names
    }
    monkeypatch.setattr(records, "read_all", lambda database: results)
    bases = {f"Symm + Triplet, base_steps = {x}" for x in (0, 50)}
    found = read(tmp_path).bases
    assert {x for x in found if x.startswith("Symm")} == bases
    assert found["Symm + Triplet, base_steps = 50"] == (
        "Triplet",
        "Triplet, hardest originals, base_steps = 50",
    )


def test_a_map_holds_embeddings_and_images(runs):
    data = evaluator.load_map(runs / "symm+triplet-seed0" / evaluator.MAP)
    assert len(data.embeddings) == len(data.labels) == len(data.images)
    assert data.images.dtype == np.uint8 and data.images.shape[1:] == (32, 32)
    assert len(np.unique(data.labels)) == 24
    assert data.images.max() == 255 and data.images.min() == 0


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut off", b"{}"])
def test_what_is_damaged_is_named(content, runs, tmp_path, capsys):
    copy = shutil.copytree(runs, tmp_path / "copy")
    for path in copy.glob(f"*/{evaluator.MAP}"):
        path.write_bytes(content)
    arguments = ["report", str(copy), "--out", str(tmp_path / "report.html")]
    assert main(arguments) == 2
    assert f"{evaluator.MAP} is damaged" in capsys.readouterr().err
    for path in copy.glob(f"*/{evaluator.MAP}"):
        path.unlink()
    (tmp_path / "speed.csv").write_bytes(b"a,b\n1,2\n" + content)
    assert main([*arguments, "--speed", str(tmp_path / "speed.csv")]) == 2
    assert f"{tmp_path / 'speed.csv'} is no speed.csv" in capsys.readouterr().err
    assert main(arguments) == 0


def test_a_folder_is_shown_once_and_must_be_there(runs, tmp_path, capsys):
    arguments = ["report", str(runs), str(runs / "..") + "/demo", "--out"]
    assert main([*arguments, str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().out.count("demo: 4 variants") == 1
    assert main([*arguments, str(tmp_path)]) == 2
    assert f"out must be a file, got the folder {tmp_path}" in capsys.readouterr().err
    for command in ("report", "gain"):
        assert main([command, str(tmp_path / "nowhere"), "--out", "unused"]) == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / 'nowhere'} holds no" in error
        assert "there is no such folder" in error


def test_it_needs_no_network(page):
    text = page.read_text()
    # Without plotly.js itself, which can load files but does not here.
    own = text.replace(re.search(r"<script>/\*.*?</script>", text, re.S)[0], "")
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?https?:""", own)
    for plot in re.findall(
        r'class="plot".*?<script type="application/json">(.*?)</sc', own
    ):
        assert json.loads(plot)["data"]


def test_plots_have_text_alternatives(page):
    text = page.read_text()
    plots = text.count('class="plot"')
    assert plots == text.count('role="img" aria-label=') == text.count("<details>")
    # Differences, six curves, the map, and speed.
    assert plots == 9


@pytest.fixture(scope="module")
def page_of_markup(runs, tmp_path_factory):
    """A report of runs with HTML markup in the names of folder, setting and loss."""
    folder = shutil.copytree(runs, tmp_path_factory.mktemp("runs") / FOLDER_OF_MARKUP)
    with sqlite3.connect(folder / "records.db") as database:
        database.execute(
            "UPDATE results SET result = json_set(result, '$.settings.trunk', ?) "
            "WHERE json_extract(result, '$.settings.seed') = 1",
            (MARKUP,),
        )
    speed = folder / "speed.csv"
    speed.write_text(SPEED.read_text().replace("N-pairs", MARKUP))
    path = folder / "report.html"
    assert main(["report", str(folder), "--out", str(path), "--speed", str(speed)]) == 0
    return path


class Texts(HTMLParser):
    """The texts that a page shows, and its scripts."""

    def __init__(self, page):
        super().__init__()
        self.shown, self.scripts, self.elements = [], [], Counter()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements[tag] += 1

    def handle_data(self, data):
        (self.scripts if self.cdata_elem == "script" else self.shown).append(data)


def test_names_are_shown_as_text(page, page_of_markup):
    found = Texts(page_of_markup)
    assert FOLDER_OF_MARKUP in found.shown
    assert f"Symm + Triplet, trunk = {MARKUP}" in found.shown
    assert MARKUP in found.shown
    plain = Texts(page)
    assert found.elements["img"] == plain.elements["img"]
    # With one run per label there is no interval, and so no plot of differences.
    assert found.elements["script"] == plain.elements["script"] - 1
    plots = [json.loads(x) for x in found.scripts if x.startswith('{"data"')]
    names = [line["name"] for plot in plots for line in plot["data"]]
    # Plotly interprets tags in names as HTML.
    assert not any("<" in name for name in names)
    assert f"Triplet, trunk = {MARKUP}" in map(html.unescape, names)


def numbers(array):
    """Those of an array of numpy, which Plotly writes in base 64."""
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])


def test_differences_and_their_intervals():
    def found(*recalls):
        return [
            {"settings": {"seed": seed}, "test": dict.fromkeys(tables.COMPARED, recall)}
            for seed, recall in enumerate(recalls)
        ]

    variants = {"base": found(0.80, 0.81, 0.82), MARKUP: found(0.81, 0.821, 0.83)}
    runs = FinishedRuns("", variants, {"base": (), MARKUP: ("base",)}, {})
    for line in difference_plot(runs).figure["data"]:
        # Plotly interprets tags in labels as HTML.
        assert line["y"] == [f"{html.escape(MARKUP)} minus base"]
        # As in the test of tables.difference: +1.03 [+0.89, +1.18].
        assert numbers(line["x"]) == pytest.approx([1.03], abs=0.01)
        assert numbers(line["error_x"]["array"]) == pytest.approx([0.145], abs=0.01)


def test_curves_are_means_over_the_seeds():
    def found(shares, lengths):
        return {
            "val": {"step": [2, 4, 6], "recall_at_1": shares},
            "gradient_norm": {"step": [0, 1], "gradient_norm": lengths},
        }

    both = [found([0.1, 0.3, 0.4], [4, 1e-4]), found([0.2, 0.5, 0.8], [6, 3e-4])]
    runs = FinishedRuns("", {MARKUP: both, "has none": [{}]}, {}, {})
    curves = {curve.file: curve_plot(runs, curve) for curve in CURVES}
    shares, lengths = curves.pop("accuracy"), curves.pop("gradient")
    assert not any(curves.values())
    assert shares.rows == [["variant", "first, %", "last, %"], [MARKUP, "15.0", "60.0"]]
    assert lengths.rows == [["variant", "first", "last"], [MARKUP, "5", "0.0002"]]
    for plot, steps, values in (
        (shares, [2, 4, 6], [15, 40, 60]),
        (lengths, [0, 1], pytest.approx([5, 2e-4])),
    ):
        (line,) = plot.figure["data"]
        assert (line["name"], line["x"]) == (html.escape(MARKUP), steps)
        assert numbers(line["y"]).tolist() == values


def test_times_are_of_their_columns(tmp_path):
    with (tmp_path / "speed.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["loss", "batch", "m", "floor ms", "PML ms", "Symm ms", "semi-hard ms"],
                ["lifted", 8, 2, 9, 1.5, 2.5, 9],
                ["lifted", 16, 2, 9, "", 4, 9],
                ["lifted", 16, 4, 9, 9, 9, 9],
            ]
        )
    plot = speed_plot(tmp_path / "speed.csv")
    assert plot.rows == [
        ["loss", "batch", "PML, ms", "Symm, ms"],
        ["lifted", "8", "1.50", "2.50"],
        ["lifted", "16", "", "4.00"],
    ]
    lines = {line["name"]: (line["x"], line["y"]) for line in plot.figure["data"]}
    assert lines == {"lifted, PML": ([8], [1.5]), "lifted, Symm": ([8, 16], [2.5, 4])}
    assert [line["line"]["dash"] for line in plot.figure["data"]] == ["dot", "solid"]


class AsTheyAre:
    """In the place of t-SNE: points in two dimensions stay where they are."""

    def __init__(self, **options):
        pass

    def fit_transform(self, points):
        return points


def test_a_mirror_image_of_the_map_shows_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "TSNE", AsTheyAre)
    labels, degrees = [5, 9, 5, 9, 5], np.array([0, 200, 10, 230, 40])
    # Twice the angle of the next one of the class, minus that of the source.
    mirrored = np.array([20, 260, 70, 170, -40])
    angles = np.deg2rad(degrees)
    evaluator.save_map(
        tmp_path / evaluator.MAP,
        # The only bright pixel of a picture is that of its number.
        [(image, 0) for image in torch.eye(5).view(5, 1, 1, 5)],
        torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=1)),
        torch.tensor(labels),
    )
    variants = {
        label: [{"settings": {"method": label}}] for label in ("Triplet", "Symm + Triplet")
    }
    maps = {"Triplet": Path("not this one"), "Symm + Triplet": tmp_path}
    plot = map_plot(FinishedRuns("demo", variants, {}, maps))
    originals, synthetic = plot.figure["data"]
    for line, expected in ((originals, degrees), (synthetic, mirrored)):
        rows = numbers(line["customdata"])
        assert sorted(rows) == [0, 1, 2, 3, 4]
        for name, axis in (("x", np.cos), ("y", np.sin)):
            found = numbers(line[name])
            assert found == pytest.approx(axis(np.deg2rad(expected[rows])), abs=0.006)
        assert line["text"] == [f"class {labels[row]}" for row in rows]
    assert numbers(originals["customdata"]).tolist() == [0, 1, 2, 3, 4]
    assert plot.rows == [["class", "originals"], ["5", "3"], ["9", "2"]]
    assert plot.title.startswith("demo, Symm + Triplet: t-SNE")
    for row, image in enumerate(plot.images):
        content = io.BytesIO(base64.b64decode(image.split(",")[1]))
        assert np.asarray(Image.open(content)).argmax() == row
    assert len(plot.images) == 5


def test_the_folder_it_is_called_in_has_a_name(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    assert main(["report", ".", "--out", str(tmp_path / "report.html")]) == 0
    assert "<h2>demo</h2>" in (tmp_path / "report.html").read_text()


def test_runs_that_were_not_tested_are_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        "N-pairs",
        0,
        steps=2,
        test_interval=2,
        batch_size=8,
        width=2,
        max_classes=8,
        touch_test=False,
    )
    run(settings, tmp_path / "runs" / "search" / "n-pairs")
    assert main(["report"]) == 2
    assert "no finished runs in runs" in capsys.readouterr().err
    assert main(["report", "runs/search"]) == 2
    assert "runs/search holds no runs" in capsys.readouterr().err


def test_no_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 2
    assert "no finished runs in runs" in capsys.readouterr().err
    assert main(["report", "elsewhere"]) == 2
    assert "elsewhere holds no runs" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.browser
class TestInChromium:
    @pytest.fixture(scope="class")
    def browser(self):
        sync_api = pytest.importorskip("playwright.sync_api")
        path = shutil.which("chromium")
        if path is None:
            pytest.skip("Chromium is not installed; make test-browser installs it")
        with sync_api.sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=path, args=flags)
            yield browser
            browser.close()

    @pytest.fixture(
        params=[("light", 1280), ("dark", 1280), ("light", 360)],
        ids=lambda x: f"{x[0]}, {x[1]} wide",
    )
    def shown(self, browser, page, request):
        scheme, width = request.param
        tab = browser.new_page(
            color_scheme=scheme, viewport={"width": width, "height": 800}
        )
        problems = []
        tab.on("console", lambda x: problems.append(x.text) if x.type == "error" else None)
        tab.on("pageerror", lambda x: problems.append(str(x)))
        tab.on("requestfailed", lambda x: problems.append(x.url))
        tab.goto(page.as_uri())
        tab.wait_for_selector("body[data-ready=true]", timeout=60_000)
        yield tab
        assert problems == []
        tab.close()

    def test_names_are_shown_as_text(self, browser, page_of_markup):
        tab = browser.new_page()
        dialogs = []
        tab.on("dialog", lambda x: (dialogs.append(x.message), x.dismiss()))
        tab.goto(page_of_markup.as_uri())
        tab.wait_for_selector("body[data-ready=true]", timeout=60_000)
        assert tab.locator("h2").first.text_content() == FOLDER_OF_MARKUP
        legend = tab.locator(".legendtext").all_text_contents()
        assert f"Triplet, trunk = {MARKUP}" in legend
        assert f"{MARKUP}, Symm" in legend
        assert dialogs == []
        tab.close()

    def test_tables_sort(self, shown):
        table = shown.locator("table.sortable").first
        header = table.locator("thead th").nth(1)

        def column():
            cells = table.locator("tbody tr td:nth-child(2)").all_text_contents()
            return [float(x.split()[0]) for x in cells]

        header.locator("button").click()
        assert header.get_attribute("aria-sort") == "descending"
        assert column() == sorted(column(), reverse=True)
        header.locator("button").press("Enter")
        assert header.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(column())

    def test_a_point_shows_its_image(self, shown):
        section = shown.locator(".map")
        section.scroll_into_view_if_needed()
        image = section.locator(".hovered")
        assert not image.is_visible()
        plot = section.locator(".plot")
        # The first point's position on the screen, from plotly.
        x, y = plot.evaluate(
            """plot => {
                const { xaxis, yaxis } = plot._fullLayout, { x, y } = plot.data[0];
                const box = plot.getBoundingClientRect();
                return [box.left + xaxis._offset + xaxis.d2p(plot._fullData[0].x[0]),
                        box.top + yaxis._offset + yaxis.d2p(plot._fullData[0].y[0])];
            }"""
        )
        shown.mouse.move(x - 30, y)
        shown.mouse.move(x, y, steps=5)
        image.wait_for(state="visible", timeout=5_000)
        assert image.get_attribute("src").startswith("data:image/png;base64,")
        assert image.evaluate("x => x.naturalWidth") == 32

    def test_mirror_images_can_be_switched_off(self, shown):
        section = shown.locator(".map")
        visible = "plot => plot.data[1].visible !== false"
        plot = section.locator(".plot")
        assert plot.evaluate(visible)
        section.locator("input[type=checkbox]").uncheck()
        assert not plot.evaluate(visible)
        section.locator("input[type=checkbox]").check()
        assert plot.evaluate(visible)

    def test_nothing_is_wider_than_the_window(self, shown):
        width = shown.evaluate("document.documentElement.scrollWidth")
        assert width <= shown.viewport_size["width"]

    def test_text_can_be_read_on_its_ground(self, shown):
        light = shown.evaluate(
            """() => [getComputedStyle(document.body).color,
                      document.querySelector(".plot")._fullLayout.font.color]"""
        )
        is_dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert (light[1] == "#eee") == is_dark
