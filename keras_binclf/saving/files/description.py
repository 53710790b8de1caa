"""The description of a saved model, made without loading it."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

from keras_binclf._registry import PACKAGE, REGISTERED
from keras_binclf._validation import is_real
from keras_binclf._version import __version__
from keras_binclf.saving.files import _config
from keras_binclf.saving.files._archive import Archive, damaged, read_archive
from keras_binclf.saving.files._config import Entry
from keras_binclf.saving.files._weights import TooLargeError, Weights
from keras_binclf.saving.files.columns import (
    ColumnDescription,
    count_columns,
    iterate_columns,
    list_encoders,
)
from keras_binclf.saving.files.text import escape, read_text, shorten

MAX_LISTED = 1_000
"""Heads, inputs, columns and classes in a description; a note tells where a file has more."""
MAX_PRINTED = 100
"""Those in its text."""
NO_WEIGHTS = "The file holds no weights in the form of model.weights.h5."


@dataclasses.dataclass(frozen=True)
class HeadDescription:
    """One head of a saved model; None for a fact that the file does not tell."""

    path: str
    """The names of the layers that hold it, and its own."""
    class_name: str
    activation: str | None
    """`"sigmoid"` where it emits probabilities, None where it emits logits."""
    threshold: float | None
    """That of the weights, which decides once the model is loaded."""
    class_names: tuple[str, ...] | None
    prior: float | None

    def __str__(self) -> str:
        """Return it on one line."""
        emits = "logits" if self.activation is None else f"probabilities ({self.activation})"
        parts = [f"{self.path}: {emits}", f"threshold {_or_unknown(self.threshold)}"]
        if self.class_names:
            parts.append("classes " + ", ".join(repr(name) for name in self.class_names))
        if self.prior is not None:
            parts.append(f"prior {self.prior}")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class InputDescription:
    """One input of a saved model; None for a fact that the file does not tell."""

    name: str | None
    shape: tuple[int | None, ...] | None
    dtype: str | None

    def __str__(self) -> str:
        """Return it on one line."""
        parts = (self.name or "(no name)", _or_unknown(self.shape), self.dtype or "")
        return " ".join(map(str, parts)).rstrip()


@dataclasses.dataclass(frozen=True)
class FileDescription:
    """The facts that `describe` reads from a `.keras` file. `str` of it is a text for people.

    None stands for a fact that the file does not tell. Texts from the file have at most 200
    characters, tuples at most 1,000 items.

    Args:
        path: the file.
        model_class: class of the model, such as `"Functional"` or `"my_package>Net"`.
        model_name: name of the model.
        heads: the heads, as `HeadDescription`, in the order of the config.
        inputs: the inputs, as `InputDescription`.
        columns: the columns of the tables that it takes, as `ColumnDescription`, where it holds
            a `TabularEncoder`.
        num_outputs: number of tensors that the model returns.
        keras_binclf_version: version of this package that wrote the file.
        keras_version: version of Keras that wrote it.
        backend: backend that wrote it, which only PyTorch's optimizers give away.
        date_saved: date and time of writing, as Keras writes them.
        num_parameters: number of the model's parameters, without the optimizer's.
        package_classes: registered names of this package that the file uses.
        custom_classes: classes and functions of others that have to be imported before loading.
        optimizer: the optimizer that the model was compiled with.
        loss: the loss that it was compiled with.
        compiled: whether it was compiled.
        notes: sentences about the file that no other field holds.

    Example:

    ```python
    import tempfile
    import keras_binclf
    from keras_binclf.saving import describe

    path = tempfile.mkdtemp() + "/model.keras"
    keras_binclf.binary_classifier(4, prior=0.1).save(path)
    description = describe(path)
    assert description.keras_binclf_version == keras_binclf.__version__
    assert description.heads[0].threshold == 0.5
    assert "binary_head: probabilities (sigmoid), threshold 0.5" in str(description)
    ```
    """

    path: str
    model_class: str
    model_name: str | None
    heads: tuple[HeadDescription, ...]
    inputs: tuple[InputDescription, ...]
    columns: tuple[ColumnDescription, ...]
    num_outputs: int | None
    keras_binclf_version: str | None
    keras_version: str | None
    backend: str | None
    date_saved: str | None
    num_parameters: int | None
    package_classes: tuple[str, ...]
    custom_classes: tuple[str, ...]
    optimizer: str | None
    loss: str | None
    compiled: bool
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as a text for people."""
        lines = [self.path, *(f"  {name:<11} {text}" for name, text in self._lines())]
        return "\n".join(map(escape, lines))

    def _lines(self) -> list[tuple[str, str]]:
        parameters = self.num_parameters
        how = f"with {self.optimizer or 'no optimizer'}, loss {self.loss or 'none'}"
        ours = _join(self.package_classes) or "no class of keras_binclf that the file lists"
        return [
            ("model", f"{self.model_class} {self.model_name!r}"),
            ("written by", self._writer()),
            *_make_lines("input", self.inputs),
            *_make_lines("column", self.columns),
            ("outputs", str(_or_unknown(self.num_outputs))),
            *_make_lines("head", self.heads),
            ("parameters", _or_unknown(parameters) if parameters is None else f"{parameters:,}"),
            ("compiled", how if self.compiled else "no"),
            ("uses", ours),
            ("needs", _join(self.custom_classes) or "no other custom classes"),
            *_make_lines("note", self.notes),
        ]

    def _writer(self) -> str:
        backend = f" on {self.backend}" if self.backend else ""
        date = f", {self.date_saved}" if self.date_saved else ""
        ours = self.keras_binclf_version or "of unknown version"
        return f"keras_binclf {ours}, Keras {self.keras_version or 'unknown'}{backend}{date}"


def describe(path: str | os.PathLike[str]) -> FileDescription:
    """Read the facts about a saved model, and about its writer, without loading it.

    Use it on files that come from elsewhere, or do not load. Nothing in the file is run or looked
    up: the config is read as JSON, the weights by shape, and of the numbers only the thresholds.
    Time and memory are bounded by the size of the file: at most 16 MiB of config and 1 GiB of
    weights are read.

    Args:
        path: str or path, a file that `model.save` wrote, with the ending `.keras`.

    Returns:
        A `FileDescription`; `print` it, or read its fields.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no `.keras` file, or one that is damaged.

    Example:

    ```python
    import tempfile
    import keras_binclf
    from keras_binclf.saving import describe

    model = keras_binclf.binary_classifier(4)
    keras_binclf.find_head(model).threshold = 0.2
    path = tempfile.mkdtemp() + "/model.keras"
    model.save(path)
    description = describe(path)
    assert description.heads[0].threshold == 0.2
    assert description.inputs[0].shape == (None, 4)
    assert description.num_parameters == model.count_params()
    ```
    """
    archive = read_archive(Path(path))
    try:
        return _describe(str(path), archive)
    except (MemoryError, RecursionError) as error:
        raise damaged(str(path), error) from error


def _describe(path: str, archive: Archive) -> FileDescription:
    model = archive.config
    entries = list(_config.iterate_objects(model))
    heads = [entry for entry in entries if entry.is_head]
    inputs = _config.list_inputs(model)
    encoders = list_encoders(entries)
    weights, note = _read_weights(archive, heads[:MAX_LISTED])
    compiled = model.get("compile_config")
    compiled = compiled if isinstance(compiled, dict) else {}
    package_classes = _list_classes(entry for entry in entries if entry.package == PACKAGE)
    custom_classes = _list_classes(entry for entry in entries if entry.is_custom)
    lists: dict[str, Sized] = {
        "heads": heads,
        "inputs": inputs,
        "columns": range(sum(map(count_columns, encoders))),
        "classes": max(package_classes, custom_classes, key=len),
    }
    notes = [*note, *_iterate_notes(entries, package_classes), *_iterate_cuts(lists)]
    return FileDescription(
        path=path,
        model_class=entries[0].class_name,
        model_name=read_text(entries[0].config.get("name")),
        heads=tuple(_describe_head(head, weights) for head in heads[:MAX_LISTED]),
        inputs=tuple(_describe_input(*one) for one in inputs[:MAX_LISTED]),
        columns=tuple(itertools.islice(iterate_columns(encoders), MAX_LISTED)),
        num_outputs=_config.count_outputs(model),
        keras_binclf_version=_config.get_versions(entries),
        keras_version=read_text(archive.metadata.get("keras_version")),
        backend=_config.get_backend(entries),
        date_saved=read_text(archive.metadata.get("date_saved")),
        num_parameters=None if weights is None else weights.num_parameters,
        package_classes=package_classes[:MAX_LISTED],
        custom_classes=custom_classes[:MAX_LISTED],
        optimizer=_config.name_of(compiled.get("optimizer")),
        loss=_config.name_of(compiled.get("loss")),
        compiled=bool(compiled),
        notes=tuple(notes),
    )


def _read_weights(archive: Archive, heads: list[Entry]) -> tuple[Weights | None, list[str]]:
    """Return the weights, or None and the reason why they were not read."""
    if archive.weights is None:
        size = archive.weights_size
        note = f"The weights take {size:,} bytes and were not read." if size else NO_WEIGHTS
        return None, [note]
    try:
        return Weights(archive.weights, {head.name for head in heads}), []
    except TooLargeError as error:
        return None, [f"The weights were not read. They have {error}."]


def _describe_head(head: Entry, weights: Weights | None) -> HeadDescription:
    names: Any = head.config.get("class_names")
    names = [read_text(name) for name in names[:3]] if isinstance(names, list) else []
    prior: Any = head.config.get("prior")
    return HeadDescription(
        path=shorten("/".join(shorten(name) for _, name in head.way)),
        class_name=head.class_name,
        activation=_config.name_of(head.config.get("activation", "sigmoid")),
        threshold=None if weights is None else weights.read_threshold(head),
        class_names=tuple(names) if len(names) == 2 and None not in names else None,
        prior=float(prior) if is_real(prior) and 0 < prior < 1 else None,
    )


def _describe_input(name: str | None, shape: Any, dtype: Any) -> InputDescription:
    return InputDescription(read_text(name), _config.read_shape(shape), read_text(dtype))


def _list_classes(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted({entry.class_name for entry in entries}))


def _iterate_notes(entries: list[Entry], package_classes: tuple[str, ...]) -> Iterator[str]:
    unknown = [name for name in package_classes if name not in REGISTERED]
    for name in unknown[:MAX_PRINTED]:
        yield f"{name} is not in keras_binclf {__version__}: pip install --upgrade keras-binclf"
    for name in _list_classes(entry for entry in entries if entry.is_closed)[:MAX_PRINTED]:
        yield f"The file does not list the layers of {name}, which may hold more heads."
    if not all(map(count_columns, list_encoders(entries))):
        yield "It holds a TabularEncoder that knows no columns: it was saved before `adapt`."
    if any(entry.class_name == "__lambda__" for entry in entries):
        yield "It holds a lambda, which Keras runs with safe_mode=False only: do you trust it?"


def _iterate_cuts(lists: dict[str, Sized]) -> Iterator[str]:
    """Yield a note for each list that is longer than a description holds."""
    for name, items in lists.items():
        if len(items) > MAX_LISTED:
            yield f"The file has {len(items):,} {name}, of which {MAX_LISTED:,} are described."


def _make_lines(title: str, items: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    yield from ((title, str(item)) for item in items[:MAX_PRINTED])
    if len(items) > MAX_PRINTED:
        yield title, f"and {len(items) - MAX_PRINTED:,} more"


def _join(names: tuple[str, ...]) -> str:
    more = len(names) - MAX_PRINTED
    return ", ".join(names[:MAX_PRINTED] + ((f"and {more:,} more",) if more > 0 else ()))


def _or_unknown(value: Any) -> Any:
    return "unknown" if value is None else value
