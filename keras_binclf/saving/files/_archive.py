"""A `.keras` file as an archive: its JSON and its weights, read without trusting its contents."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

from keras_binclf._validation import error_message
from keras_binclf.saving.files._config import is_object
from keras_binclf.saving.files.text import escape, shorten

MEBIBYTE = 2**20
MAX_CONFIG = 16 * MEBIBYTE
"""A layer takes about a thousand bytes, and JSON in memory about thirty times its bytes."""
MAX_METADATA = MEBIBYTE
MAX_WEIGHTS = 1024 * MEBIBYTE
FREE_EXPANSION = 2 * MEBIBYTE
"""Keras writes archives uncompressed. Of a compressed one, this many bytes are read in any case."""
MAX_CONFIG_EXPANSION = 2
MAX_WEIGHTS_EXPANSION = 20
"""Compressed weights hardly shrink, unless they are zeros."""

EXPECTED = "a file that `model.save` wrote, with the ending .keras"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Archive:
    """The contents of a `.keras` file."""

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
        content = _read(archive, "config.json", MAX_CONFIG, MAX_CONFIG_EXPANSION)
        config = _parse("config.json", content)
        content = _read(archive, "metadata.json", MAX_METADATA, MAX_CONFIG_EXPANSION)
        metadata = _parse("metadata.json", content)
        if not is_object(config):
            raise ValueError(f"{path} is no `.keras` file: it has no config.json with a model.")
        size = _get_size(archive, "model.weights.h5")
        weights = None
        if size <= MAX_WEIGHTS:
            weights = _read(archive, "model.weights.h5", MAX_WEIGHTS, MAX_WEIGHTS_EXPANSION)
        return Archive(config, metadata if isinstance(metadata, dict) else {}, weights, size)


def damaged(name: str | Path, error: BaseException) -> ValueError:
    """Return the error for a damaged file, whatever the original error is."""
    return ValueError(f"{name} is damaged: {shorten(escape(str(error))) or type(error).__name__}")


def _check_is_archive(path: Path) -> None:
    if path.exists() and not path.is_file():
        hint = "It is a folder." if path.is_dir() else "It is a pipe or a device."
        raise ValueError(error_message("path", "describe", EXPECTED, str(path), hint))
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
    return archive.getinfo(name).file_size if name in archive.NameToInfo else 0


def _read(archive: zipfile.ZipFile, name: str, limit: int, expansion: int) -> bytes | None:
    """Return a member, checked against its checksum; None if there is none.

    It may not be larger than `limit`, nor than `expansion` times the bytes that it takes.
    """
    found = [info for info in archive.infolist() if info.filename == name]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{archive.filename} is damaged: it holds {name} {len(found)} times.")
    (info,) = found
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python decompresses the others whole, however large they become.
        raise ValueError(f"{name} of {archive.filename} is compressed, but not by deflate.")
    # A member cannot take more bytes than the archive, whatever it says.
    stored = min(info.compress_size, Path(str(archive.filename)).stat().st_size)
    bound = min(limit, max(FREE_EXPANSION, expansion * stored))
    if info.file_size > bound:
        raise ValueError(
            f"{name} of {archive.filename} is too large. Expected: at most {bound:,} bytes. "
            f"Received: {info.file_size:,} bytes, compressed to {stored:,}."
        )
    try:
        with archive.open(info) as member:
            # With its size: `read()` decompresses the rest of the file too.
            return member.read(info.file_size)
    except Exception as error:  # of many kinds, as in `_open`
        raise damaged(f"{name} of {archive.filename}", error) from error


def _parse(name: str, content: bytes | None) -> Any:
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(name, error) from error
