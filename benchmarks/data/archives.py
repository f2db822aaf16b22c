"""Downloads and archives: no partial result, and no file outside the target folder."""

from __future__ import annotations

import atexit
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import torch
from tqdm import tqdm

from .files import default_root, warn_of_cache
from .fingerprints import fingerprint

_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    EOFError,
    RuntimeError,  # a zip archive with a password
)


def download_and_unpack(url: str, folder: Path) -> None:
    """Fetch a tar or zip archive, unpack it, and move its contents into a folder.

    It is fetched and unpacked in a temporary folder beside, which is removed at the end.

    Args:
        url: of the archive.
        folder: created if it does not exist.

    Raises:
        OSError: it cannot be fetched or written.
        ValueError: it is no such archive, or a member would be outside the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _partial(folder) as temporary:
        archive, contents = Path(temporary, "archive"), Path(temporary, "contents")
        torch.hub.download_url_to_file(url, str(archive))
        unpack(archive, contents)
        folder.mkdir(exist_ok=True)
        for path in contents.iterdir():
            path.rename(folder / path.name)


def unpacked(archive: Path) -> Path:
    """The folder of an archive's contents in the user's cache folder, unpacked once.

    An archive of the same name with other contents gets another folder. If the
    cache cannot be written, the folder is a temporary one.

    Args:
        archive: a tar or zip file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such archive, or a member would be outside the folder.
    """
    name = f"{archive.name}-{fingerprint([str(archive)], archive.parent)[-32:]}"
    folder = default_root() / name
    if os.path.isdir(folder):  # also False without permission to read
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(folder)
    except OSError as error:
        warn_of_cache(folder.parent, error.strerror)
        temporary = tempfile.mkdtemp(prefix=f"{name}-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        unpack(archive, Path(temporary))
        return Path(temporary)
    with partial as temporary:
        whole = Path(temporary, "contents")
        unpack(archive, whole)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive, no member of which may be outside the folder.

    Args:
        archive: the file.
        folder: created if it does not exist.

    Raises:
        ValueError: it is no such archive, is damaged, or a member would be outside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress = f"unpacking {archive.name}"
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                members = tqdm(tar, progress, unit="file")
                tar.extractall(folder, members, filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                outside = [x for x in file.namelist() if _is_outside(x)]
                if outside:
                    raise ValueError(f"{archive} has members outside: {', '.join(outside)}")
                for member in tqdm(file.infolist(), progress, unit="file"):
                    # Some programs for Windows write what the format does not allow.
                    member.filename = member.filename.replace("\\", "/")
                    file.extract(member, folder)
        else:
            with archive.open("rb") as start:
                if start.read(4) == b"PK\3\4":
                    raise zipfile.BadZipFile("the zip archive is cut off")
            raise ValueError(f"{archive} is neither a tar nor a zip archive")
    except _DAMAGES as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error


def _partial(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside another one."""
    return tempfile.TemporaryDirectory(prefix=f"{folder.name}.partial-", dir=folder.parent)


def _is_outside(member: str) -> bool:
    path = PurePosixPath(member.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in member.split("/")[0]
