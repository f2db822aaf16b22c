"""Files: the user's cache, what is written whole, archives, locks, and fingerprints."""

from __future__ import annotations

import hashlib
import logging
import lzma
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import platformdirs
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

LOGGER = logging.getLogger(__name__)
_BLOCK = 2**20  # bytes to read at a time
_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    EOFError,
    RuntimeError,  # a zip archive with a password
)
T = TypeVar("T")


def check_name(name: str, path: Path) -> None:
    """Raise ValueError for a path that databases and tables, in UTF-8, cannot name."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be a path in UTF-8, got {str(path)!r}") from error


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when it is completely on the disk.

    Neither a full disk nor a second process that writes the same file can leave half a
    file under that name. Its folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Only their owner may read temporary files; give this one the usual permissions.
        os.umask(mask := os.umask(0))
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def sha256(parts: Iterable[bytes]) -> str:
    """A digest of all parts together, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files of written_whole that a killed process left in a folder."""
    for path in folder.glob(f"{tempfile.gettempprefix()}*"):
        path.unlink()


def partial_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside another one, to fill before it gets that name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"{folder.name}.partial-", dir=folder.parent)


@contextmanager
def locked(
    path: Path, before_waiting: Callable[[], object], while_waiting: Callable[[], object]
) -> Iterator[None]:
    """Hold the lock of a file, which is free again if its process is killed.

    If another process holds it, one function is called before waiting, and one every second
    while waiting, which may raise an error to stop.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        before_waiting()
    while not lock.is_locked:
        while_waiting()
        with suppress(Timeout):
            lock.acquire(timeout=1)
    try:
        yield
    finally:
        lock.release()


def default_root() -> Path:
    """The cache folder: pml-symm in the user's one."""
    return platformdirs.user_cache_path("pml-symm")


def can_write(folder: Path) -> bool:
    """Whether a folder, made if it does not exist, can be written; warns once if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        warn_of_cache(folder, error.strerror)
        return False
    return True


@lru_cache
def warn_of_cache(folder: Path, reason: str | None) -> None:
    """Warn once that nothing can be kept in a folder."""
    LOGGER.warning(
        "the cache folder %s cannot be written (%s), so its contents are made again each "
        "time; set XDG_CACHE_HOME to use another folder",
        folder,
        reason,
    )


def kept(
    name: str,
    made: str,
    read: Callable[[Path], T],
    make: Callable[[], T],
    write: Callable[[T, BinaryIO], object],
) -> T:
    """What a file of the cache holds; made and written if it is missing or damaged.

    Any error of read means that it is damaged; a warning says that it is made again, in a
    word such as "drawn".
    """
    path = default_root() / name
    if os.path.exists(path):  # also False without permission to read
        try:
            return read(path)
        except Exception as error:
            LOGGER.warning("%s is damaged and is %s again: %s", path, made, error)
    contents = make()
    try:
        with written_whole(path) as file:
            write(contents, file)
    except OSError as error:
        warn_of_cache(path.parent, error.strerror)
    return contents


def fingerprint(paths: Sequence[str], root: Path) -> str:
    """The number and the size of files, and a digest of their names and contents.

    Names are relative to the root, so that a dataset can be moved; missing files are left
    out. Reading takes a while: the result is kept in the cache, for as long as paths, sizes
    and times of the files stay the same.
    """
    paths = [path for path in dict.fromkeys(paths) if os.path.isfile(path)]
    key = sha256([os.fsencode(os.path.abspath(root)), states_of(paths)])

    def make() -> str:
        digests = thread_map(_digest, paths, desc="fingerprint", unit="file", leave=False)
        whole = sha256(
            repr((Path(os.path.relpath(path, root)).as_posix(), digest)).encode()
            for path, digest in sorted(zip(paths, digests, strict=True))
        )
        size = sum(os.path.getsize(path) for path in paths)
        files = f"{len(paths):,} file{'s' * (len(paths) != 1)}"
        return f"{files} of {size:,} bytes, SHA-256 {whole[:32]}"

    return kept(
        f"files-{key[:32]}.txt",
        "made",
        lambda path: path.read_text(encoding="utf-8"),
        make,
        lambda text, file: file.write(text.encode()),
    )


def states_of(paths: Iterable[str]) -> bytes:
    """The files' paths, sizes, numbers and times, to detect changes.

    Programs that copy files can set the time of the last change of their contents, but not
    the other one.

    Raises:
        OSError: one does not exist.
    """
    states = ((os.path.abspath(path), os.stat(path)) for path in paths)
    return b"".join(
        repr((path, x.st_size, x.st_ino, x.st_mtime_ns, x.st_ctime_ns)).encode()
        for path, x in states
    )


def _digest(path: str) -> str:
    """SHA-256 of a file's contents; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return sha256(iter(lambda: file.read(_BLOCK), b""))
    except OSError:
        return ""


def download_and_unpack(url: str, folder: Path) -> None:
    """Fetch an archive and unpack it; after an error nothing is left.

    Raises:
        OSError: it cannot be fetched or written.
        ValueError: as unpack.
    """
    with partial_folder(folder) as partial:
        archive, contents = Path(partial, "archive"), Path(partial, "contents")
        torch.hub.download_url_to_file(url, str(archive))
        unpack(archive, contents)
        folder.mkdir(exist_ok=True)
        for path in contents.iterdir():
            path.rename(folder / path.name)


def unpacked(archive: Path) -> Path:
    """The folder of an archive's contents in the cache, unpacked once.

    An archive of the same name with other contents gets another folder. If the cache
    cannot be written, the folder is a temporary one.

    Raises:
        OSError: it cannot be read.
        ValueError: as unpack.
    """
    name = f"{archive.name}-{fingerprint([str(archive)], archive.parent)[-32:]}"
    root = default_root()
    # isdir is also False without permission to read.
    if not os.path.isdir(root / name) and not can_write(root):
        root = Path(_temporary_root().name)
    folder = root / name
    if not folder.is_dir():
        with partial_folder(folder) as partial:
            whole = Path(partial, "contents")
            unpack(archive, whole)
            try:
                whole.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    return folder


@lru_cache
def _temporary_root() -> tempfile.TemporaryDirectory[str]:
    """In the place of a cache that cannot be written; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="pml-symm-")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive, no member of which may be outside the folder.

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
                outside = [x for x in file.namelist() if ".." in re.split(r"[/\\]", x)]
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
