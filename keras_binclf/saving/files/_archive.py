"""A `.keras` file as an archive: its JSON and its weights, read without trusting what they say."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

from keras_binclf._validation import error_message
from keras_binclf.saving.files._config import is_object

MEBIBYTE = 2**20
MAX_JSON = 64 * MEBIBYTE
"""A layer takes about a thousand bytes."""
MAX_WEIGHTS = 1024 * MEBIBYTE
MAX_EXPANSION = 100
"""Keras writes archives uncompressed, and deflated weights hardly shrink."""

EXPECTED = "a file that `model.save` wrote, with the ending .keras"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a `.keras` file holds."""

    config: dict[str, Any]
    metadata: dict[str, Any]
    weights: bytes | None
    """The HDF5 file with the weights; None where there is none, or one over `MAX_WEIGHTS`."""
    weights_size: int


def read_archive(path: Path) -> Archive:
    """Read a `.keras` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no `.keras` file, or a damaged one.
    """
    _check_is_archive(path)
    with _open(path) as archive:
        config = _parse("config.json", _read(archive, "config.json", MAX_JSON))
        metadata = _parse("metadata.json", _read(archive, "metadata.json", MAX_JSON))
        if not is_object(config):
            raise ValueError(f"{path} is no `.keras` file: it has no config.json with a model.")
        size = _get_size(archive, "model.weights.h5")
        weights = None
        if size <= MAX_WEIGHTS:
            weights = _read(archive, "model.weights.h5", MAX_WEIGHTS)
        return Archive(config, metadata if isinstance(metadata, dict) else {}, weights, size)


def damaged(name: str | Path, error: Exception) -> ValueError:
    """Return the one error for all that a damaged file can lead to."""
    return ValueError(f"{name} is damaged: {str(error) or type(error).__name__}")


def _check_is_archive(path: Path) -> None:
    if path.is_dir():
        raise ValueError(error_message("path", "describe", EXPECTED, str(path), "It is a folder."))
    with path.open("rb") as file:
        start = file.read(len(HDF5_MAGIC))
    hint = "It is no zip archive, or one that was cut off."
    if start == HDF5_MAGIC:
        hint = "It is an HDF5 file: load it, and save it as `.keras`."
    if start == HDF5_MAGIC or not zipfile.is_zipfile(path):
        raise ValueError(error_message("path", "describe", EXPECTED, str(path), hint))


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # besides `BadZipFile` also `struct.error`, `OSError` and others
        raise damaged(path, error) from error


def _get_size(archive: zipfile.ZipFile, name: str) -> int:
    return archive.getinfo(name).file_size if name in archive.namelist() else 0


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes | None:
    """Return a member, checked against its checksum; None if there is none."""
    size = _get_size(archive, name)
    if name not in archive.namelist():
        return None
    info = archive.getinfo(name)
    if size > limit or size > MEBIBYTE + MAX_EXPANSION * info.compress_size:
        raise ValueError(
            f"{name} of {archive.filename} takes {size:,} bytes of {info.compress_size:,} stored, "
            f"more than are read: {limit:,}, and {MAX_EXPANSION} times what is stored."
        )
    try:
        return archive.read(info)
    except Exception as error:  # of many kinds, as above
        raise damaged(f"{name} of {archive.filename}", error) from error


def _parse(name: str, content: bytes | None) -> Any:
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(name, error) from error
