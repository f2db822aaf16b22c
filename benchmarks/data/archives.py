"""Downloads and archives that leave nothing half done, and nothing where it must not be."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import torch


def download_and_unpack(url: str, folder: Path) -> None:
    """Fetch a tar or zip archive, and move what is in it into a folder.

    Both happen in a temporary folder beside it, which is removed at the end.

    Args:
        url: of the archive.
        folder: is made if it is not there.

    Raises:
        OSError: it cannot be fetched or written.
        ValueError: no such archive, or a member would be outside the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{folder.name}.partial-", dir=folder.parent
    ) as temporary:
        archive, unpacked = Path(temporary, "archive"), Path(temporary, "unpacked")
        torch.hub.download_url_to_file(url, str(archive))
        unpack(archive, unpacked)
        folder.mkdir(exist_ok=True)
        for path in unpacked.iterdir():
            path.rename(folder / path.name)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive, no member of which may be outside the folder.

    Args:
        archive: the file.
        folder: is made if it is not there.

    Raises:
        ValueError: no such archive, a damaged one, or a member that is outside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if tarfile.is_tarfile(archive):
            shutil.unpack_archive(archive, folder, "tar", filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                outside = [x for x in file.namelist() if _is_outside(x)]
            if outside:
                raise ValueError(f"{archive} has members outside: {', '.join(outside)}")
            shutil.unpack_archive(archive, folder, "zip")
        else:
            raise ValueError(f"{archive} is neither a tar nor a zip archive")
    except (tarfile.TarError, shutil.ReadError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error


def _is_outside(member: str) -> bool:
    path = PurePosixPath(member.replace("\\\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
