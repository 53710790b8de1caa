"""The folder of a search: whether it can be written, and by which search it was made."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_binclf._version import __version__

MARKER = "keras_binclf.json"
BYTES_PER_WEIGHT = 12
"""Bytes of a checkpoint for each weight: the weight and two moments of Adam, in float32."""


def make_fingerprint(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of the package, and a hash of it and of all that trials depend on.

    Args:
        parts: JSON by name.
    """
    text = json.dumps({"version": __version__, **parts}, sort_keys=True)
    return {"version": __version__, "fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def check_directory(project_dir: str, num_weights: int) -> None:
    """Raise if a search cannot write there."""
    place = Path(project_dir).absolute()
    existing = next(parent for parent in (place, *place.parents) if parent.exists())
    hint = "Give the tuner another `directory`."
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"A search cannot write to {project_dir}: {error}. {hint}") from None
    needed, free = num_weights * BYTES_PER_WEIGHT, shutil.disk_usage(existing).free
    if free < needed:
        raise ValueError(
            f"A search needs up to {needed / 1e6:.1f} MB for each trial in {project_dir}. "
            f"Received: {free / 1e6:.1f} MB free. {hint}"
        )


def check_project(project_dir: str, fingerprint: dict[str, str], name: str) -> None:
    """Raise if the project was made by a search over another space, or cannot be read.

    Args:
        project_dir: folder of the project.
        fingerprint: returned by `make_fingerprint`.
        name: the name for a project of this search.
    """
    folder = Path(project_dir)
    for file in (folder / "oracle.json", *folder.glob("trial_*/trial.json")):
        if file.exists():
            _read_json(file)
    if _read_marker(project_dir) is None and (folder / "oracle.json").exists():
        raise ValueError(
            f"The project in {project_dir} was made by something else: it has trials, but no "
            f"{MARKER}. {_explain_way_out(name)}"
        )
    _check_marker(project_dir, fingerprint, name)


def claim_project(project_dir: str, fingerprint: dict[str, str], name: str) -> None:
    """Write the fingerprint into a new project; raise if another search made the project.

    Args:
        project_dir: folder of the project.
        fingerprint: returned by `make_fingerprint`.
        name: the name for a project of this search.
    """
    if _read_marker(project_dir) is None:
        _write_marker(project_dir, fingerprint)
    _check_marker(project_dir, fingerprint, name)


def _check_marker(project_dir: str, fingerprint: dict[str, str], name: str) -> None:
    """Raise if the project was made by another version or over another space."""
    made_by = _read_marker(project_dir) or fingerprint
    if made_by != fingerprint:
        raise ValueError(
            f"The project in {project_dir} was made by another search (keras_binclf "
            f"{made_by.get('version')}, {made_by.get('fingerprint')}) than this one "
            f"({fingerprint['version']}, {fingerprint['fingerprint']}): its trials would be taken "
            f"for trials of this space. {_explain_way_out(name)}"
        )


def _explain_way_out(name: str) -> str:
    return (
        f"Give the tuner `project_name=hypermodel.project_name` ({name!r}), another `directory`, "
        "or `overwrite=True`, which deletes those trials."
    )


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError:
        raise ValueError(
            f"{file} is damaged, as when a search is killed while it writes. Remove its folder if "
            "it is one trial's, which runs again; without oracle.json the search starts anew: "
            "give the tuner another `project_name`."
        ) from None


def _read_marker(project_dir: str) -> Any:
    """Return the fingerprint of the search that made the project; None where there is none."""
    file = Path(project_dir) / MARKER
    return _read_json(file) if file.exists() else None


def _write_marker(project_dir: str, fingerprint: dict[str, str]) -> None:
    """Write the fingerprint of the search that makes the project, whole or not at all."""
    file = Path(project_dir) / MARKER
    part = file.with_name(f"{MARKER}.{os.getpid()}")
    part.write_text(json.dumps(fingerprint))
    part.replace(file)
