"""Writing to a path so that it holds the earlier contents or the new ones, and nothing between."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_and_replace(path: str | os.PathLike[str], owner: str) -> Iterator[Path]:
    """Give another path of the same name to write to, whose contents move to `path` at the end.

    That path lies in a folder beside `path`. All files and folders written there move as soon as
    they are on the disk. If the body raises, nothing is left, and `path` stays as it was. A process
    that is killed leaves the folder, whose name starts with a dot.

    Args:
        path: where to write; of a symbolic link, the file that it points to.
        owner: name of the caller, for the message.

    Raises:
        OSError: if the folder of `path` cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:50]}-")
    except OSError as error:
        text = f"{owner} cannot write to {str(target.parent)!r}: {error.strerror}"
        raise type(error)(error.errno, text) from None
    with folder as name:
        yield Path(name, target.name)
        _flush(Path(name))
        for written in sorted(Path(name).iterdir()):
            place = target.with_name(written.name)
            if place.is_file():
                shutil.copymode(place, written)
            os.replace(written, place)
        _flush_one(target.parent)


def _flush(folder: Path) -> None:
    """Wait until all in a folder is on the disk, where a power cut leaves it."""
    for path in folder.rglob("*"):
        _flush_one(path)


def _flush_one(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
