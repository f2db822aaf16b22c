"""Archives cannot write outside their folder; a failed download leaves no files."""

import io
import tarfile
import zipfile

import pytest

from benchmarks.data.files import download_and_unpack, unpack

OUTSIDE = ["../evil.txt", "/elsewhere/evil.txt", "good/../../evil.txt"]


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"text"))


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name in members:
            file.writestr(name, "text")


@pytest.fixture(params=[make_tar, make_zip])
def make(request):
    return request.param


def files_in(folder):
    return sorted(str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file())


def test_all_of_an_archive_is_unpacked(make, tmp_path):
    make(tmp_path / "archive", ["a.txt", "folder/b.txt"])
    download_and_unpack((tmp_path / "archive").as_uri(), tmp_path / "root")
    assert files_in(tmp_path / "root") == ["a.txt", "folder/b.txt"]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["archive", "root"]


@pytest.mark.parametrize("member", OUTSIDE)
def test_no_member_is_outside(make, member, tmp_path):
    make(tmp_path / "archive", ["a.txt", member])
    if member.startswith("/"):  # an absolute name is unpacked inside the folder
        inside = ["a.txt", "elsewhere/evil.txt"]
        unpack(tmp_path / "archive", tmp_path / "deep" / "folder")
    else:
        inside = ["a.txt"] if make is make_tar else []  # a zip's names are read first
        with pytest.raises(ValueError, match=r"has members outside|would be .* outside"):
            unpack(tmp_path / "archive", tmp_path / "deep" / "folder")
    assert files_in(tmp_path) == ["archive", *(f"deep/folder/{x}" for x in inside)]


def test_a_link_to_the_outside_is_refused(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as file:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../elsewhere"
        file.addfile(link)
    with pytest.raises(ValueError, match=r"cannot be unpacked.*elsewhere"):
        unpack(tmp_path / "archive", tmp_path / "root")


def test_backslashes_of_windows_are_slashes(tmp_path):
    make_zip(tmp_path / "archive", ["folder\\a.txt", "folder\\deep\\b.txt"])
    unpack(tmp_path / "archive", tmp_path / "root")
    assert files_in(tmp_path / "root") == ["folder/a.txt", "folder/deep/b.txt"]


def test_a_truncated_zip_is_called_that(tmp_path):
    make_zip(path := tmp_path / "archive", ["a.txt", "b.txt"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="the zip archive is cut off"):
        unpack(path, tmp_path / "root")


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_a_damaged_archive_leaves_nothing(make, damage, tmp_path):
    path = tmp_path / "archive"
    make(path, [f"{x}.txt" for x in range(50)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"<html>")
    with pytest.raises(ValueError, match=r"cannot be unpacked|neither a tar nor a zip"):
        download_and_unpack(path.as_uri(), tmp_path / "root")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["archive"]


def test_a_download_that_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        download_and_unpack((tmp_path / "archive").as_uri(), tmp_path / "root")
    assert list(tmp_path.iterdir()) == []
