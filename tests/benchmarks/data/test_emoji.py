"""Emoji: which names are classes, how they are drawn, and what is refused."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.data import emoji
from benchmarks.data.emoji import MIN_DRAWINGS, SETS, classes, digest, svg

RED = '<path fill="#f00" d="M0 0h{width}v{height}H0z"/>'
SQUARE = {"body": RED.format(width=32, height=32)}
FLAT = {"body": RED.format(width=32, height=16), "height": 16}
SEVERAL, FEW = list(SETS)[:MIN_DRAWINGS], list(SETS)[: MIN_DRAWINGS - 1]
# A stand-in for npm: "npm pack ... @iconify-json/NAME@VERSION".
NPM = """#!/bin/sh
for package; do :; done
name=${package##*/}
cp "%s/${name%%%%@*}.tgz" . 2>/dev/null && exit
echo "npm error 404 Not Found" >&2
exit 1
"""


def icons(**drawings):
    return {"width": 32, "height": 32, "icons": drawings}


def pack(path, icons):
    author = {"name": "Ann Author", "url": "https://example.org/set"}
    licence = {"title": "CC BY 4.0", "url": "https://example.org/licence"}
    info = {"name": "A Set", "author": author, "license": licence}
    with tarfile.open(path, "w:gz") as file:
        for name, contents in {"icons.json": icons, "info.json": info}.items():
            data = json.dumps(contents).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages, the only ones that npm finds."""
    pytest.importorskip("resvg_py")
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in SETS:
        drawings = {"cat": SQUARE, "rare": SQUARE} if name in FEW else {"cat": FLAT}
        pack(folder / f"{name}.tgz", icons(**drawings))
    npm = tmp_path / "npm"
    npm.write_text(NPM % folder)
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "emoji"


def refusal(out, capsys):
    assert main(["emoji", str(out)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("error: ") :]


def test_a_class_is_a_name_that_enough_sets_have():
    sets = {name: icons(cat={}, **({"dog": {}} if name in FEW else {})) for name in SEVERAL}
    assert classes(sets) == {"cat": sorted(SEVERAL)}


@pytest.mark.parametrize(
    "name", ["boy-light-skin-tone", "keycap-1", "flag-in-hole", "couple-dark-skin-tone-1"]
)
def test_variants_are_not_classes(name):
    assert classes({one: icons(**{name: {}}) for one in SETS}) == {}


@pytest.mark.parametrize("name", ["rainbow-flag", "crossed-flags", "key", "curling-stone"])
def test_names_that_only_look_like_variants_are_classes(name):
    assert list(classes({one: icons(**{name: {}}) for one in SETS})) == [name]


def test_what_a_set_has_given_up_does_not_count():
    sets = {name: icons(old={"hidden": name not in FEW}) for name in SEVERAL}
    assert classes(sets) == {}


def test_an_icon_has_the_box_of_its_set_unless_it_has_one():
    both = icons(square=SQUARE, flat=FLAT)
    assert 'viewBox="0 0 32 32"' in svg(both, "square")
    assert 'viewBox="0 0 32 16"' in svg(both, "flat")
    assert 'viewBox="0 0 16 16"' in svg({"icons": {"x": SQUARE}}, "x")


def test_pictures_are_on_white_in_class_folders(packages, out, capsys):
    assert main(["emoji", str(out)]) == 0
    assert "1 emoji in 9 sets, 9 pictures" in capsys.readouterr().out
    found = {str(x.relative_to(out)) for x in out.rglob("*.png")}
    assert found == {f"cat/{name}.png" for name in SETS}
    with Image.open(out / "cat" / f"{FEW[0]}.png") as image:
        assert image.mode == "RGB"
        square = np.asarray(image)
    np.testing.assert_array_equal(square, np.full((96, 96, 3), [255, 0, 0]))
    flat = np.asarray(Image.open(out / "cat" / f"{list(SETS)[-1]}.png"))
    assert (flat[:24] == 255).all() and (flat[72:] == 255).all()
    np.testing.assert_array_equal(flat[24:72], square[24:72])
    assert list(out.parent.iterdir()) == [out]


def test_licences_lie_beside_the_pictures(packages, out):
    assert main(["emoji", str(out)]) == 0
    lines = (out / "LICENCES.md").read_text().splitlines()
    for name, version in SETS.items():
        (line,) = [x for x in lines if x.startswith(f"| {name}.png |")]
        assert "Ann Author" in line and "CC BY 4.0" in line
        assert f"@iconify-json/{name} {version}" in line


def test_what_is_finished_is_left_alone(packages, out, monkeypatch):
    assert main(["emoji", str(out)]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setenv("PATH", "")
    assert main(["emoji", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_published_pictures_are_recognized(packages, out, monkeypatch, capsys):
    assert main(["emoji", str(out)]) == 0
    assert f"another digest than the documentation's, {emoji.DIGEST}" in (
        capsys.readouterr().out
    )
    monkeypatch.setattr(emoji, "DIGEST", digest(out))
    assert main(["emoji", str(out)]) == 0
    assert "the same as the documentation's" in capsys.readouterr().out


def test_the_digest_is_of_names_and_pixels(tmp_path):
    path = tmp_path / "cat" / "noto.png"
    path.parent.mkdir()
    Image.new("RGB", (2, 2), "red").save(path)
    first = digest(tmp_path)
    Image.new("RGB", (2, 2), "red").save(path, compress_level=0)
    assert digest(tmp_path) == first
    Image.new("RGB", (2, 2), "#fe0000").save(path)
    assert digest(tmp_path) != first
    Image.new("RGB", (2, 2), "red").save(path)
    path.rename(path.with_name("openmoji.png"))
    assert digest(tmp_path) != first


@pytest.mark.parametrize("damage", ["removed", "cut", "broken", "changed"])
def test_a_changed_dataset_is_refused(damage, packages, out, capsys):
    assert main(["emoji", str(out)]) == 0
    path = out / "cat" / f"{FEW[0]}.png"
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "broken":  # the second of two chunks of pixels has another length
        noise = Image.effect_noise((512, 512), 99).convert("RGB")
        noise.save(path)
        data = path.read_bytes()
        second = data.index(b"IDAT", data.index(b"IDAT") + 4)
        path.write_bytes(data[: second - 4] + b"\xff" * 8 + data[second + 4 :])
    else:
        Image.new("RGB", (96, 96)).save(path)
    assert f"{out} is no longer as it was drawn" in refusal(out, capsys)


def test_a_folder_of_something_else_is_refused(packages, out, capsys):
    out.mkdir(parents=True)
    (out / "thesis.tex").touch()
    assert f"{out} has other things in it" in refusal(out, capsys)
    assert [x.name for x in out.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_used(packages, out):
    out.mkdir(parents=True)
    assert main(["emoji", str(out)]) == 0
    assert (out / "cat").is_dir()


def test_without_npm_it_says_how_to_get_it(packages, out, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert "apt install npm" in refusal(out, capsys)
    assert not out.parent.exists()


def test_a_package_that_cannot_be_fetched_is_named(packages, out, capsys):
    (packages / "openmoji.tgz").unlink()
    error = refusal(out, capsys)
    assert f"npm cannot fetch @iconify-json/openmoji@{SETS['openmoji']}" in error
    assert "404 Not Found" in error
    assert list(out.parent.iterdir()) == []


def test_a_damaged_package_leaves_nothing(packages, out, capsys):
    path = packages / "openmoji.tgz"
    path.write_bytes(path.read_bytes()[:100])
    assert "openmoji" in refusal(out, capsys)
    assert list(out.parent.iterdir()) == []


def test_without_resvg_it_says_how_to_get_it(packages, out, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert "pip install '.[emoji]'" in refusal(out, capsys)
    assert not out.exists()
