"""What a saved model is, without loading it."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_binclf._registry import PACKAGE, REGISTERED
from keras_binclf._validation import is_integer, is_real
from keras_binclf._version import __version__
from keras_binclf.saving.files import _config
from keras_binclf.saving.files._archive import Archive, damaged, read_archive
from keras_binclf.saving.files._config import Entry
from keras_binclf.saving.files._weights import count_parameters, open_weights, read_threshold

NO_WEIGHTS = "The file holds no weights in the form of model.weights.h5."


@dataclasses.dataclass(frozen=True)
class HeadDescription:
    """One head of a saved model; None for what the file does not tell."""

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
    """One input of a saved model; None for what the file does not tell."""

    name: str | None
    shape: tuple[int | None, ...] | None
    dtype: str | None

    def __str__(self) -> str:
        """Return it on one line."""
        parts = (self.name or "(no name)", _or_unknown(self.shape), self.dtype or "")
        return " ".join(map(str, parts)).rstrip()


@dataclasses.dataclass(frozen=True)
class FileDescription:
    """What a `.keras` file tells, as `describe` reads it. `str` of it is a text for people.

    None stands for what the file does not tell.

    Args:
        path: the file.
        model_class: class of the model, such as `"Functional"` or `"my_package>Net"`.
        model_name: name of the model.
        heads: the heads, as `HeadDescription`, in the order of the config.
        inputs: the inputs, as `InputDescription`.
        num_outputs: how many tensors the model gives.
        keras_binclf_version: version of this package that wrote the file.
        keras_version: version of Keras that wrote it.
        backend: backend that wrote it, which only PyTorch's optimizers give away.
        date_saved: when it was written, in the words of Keras.
        num_parameters: how many numbers the model's weights have, without the optimizer's.
        package_classes: registered names of this package that the file uses.
        custom_classes: classes and functions of others that have to be imported before loading.
        optimizer: the optimizer that the model was compiled with.
        loss: the loss that it was compiled with.
        compiled: whether it was compiled.
        notes: what else has to be known, in sentences.

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
        return "\n".join(map(_escape, lines))

    def _lines(self) -> list[tuple[str, str]]:
        parameters = self.num_parameters
        how = f"with {self.optimizer or 'no optimizer'}, loss {self.loss or 'none'}"
        return [
            ("model", f"{self.model_class} {self.model_name!r}"),
            ("written by", self._writer()),
            *(("input", str(one)) for one in self.inputs),
            ("outputs", str(_or_unknown(self.num_outputs))),
            *(("head", str(head)) for head in self.heads),
            ("parameters", _or_unknown(parameters) if parameters is None else f"{parameters:,}"),
            ("compiled", how if self.compiled else "no"),
            (
                "uses",
                ", ".join(self.package_classes) or "no class of keras_binclf that the file lists",
            ),
            ("needs", ", ".join(self.custom_classes) or "no other custom classes"),
            *(("note", note) for note in self.notes),
        ]

    def _writer(self) -> str:
        backend = f" on {self.backend}" if self.backend else ""
        date = f", {self.date_saved}" if self.date_saved else ""
        ours = self.keras_binclf_version or "of unknown version"
        return f"keras_binclf {ours}, Keras {self.keras_version or 'unknown'}{backend}{date}"


def describe(path: str | os.PathLike[str]) -> FileDescription:
    """Tell what a saved model is and who wrote it, without loading it.

    Nothing in the file is run or looked up: the config is read as JSON, the weights by shape, and
    of the numbers only the thresholds. At most 64 MiB of config and 1 GiB of weights are read.
    Use it on files that come from elsewhere, or do not load.

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
    except RecursionError as error:
        raise damaged(str(path), error) from error


def _describe(path: str, archive: Archive) -> FileDescription:
    model = archive.config
    entries = list(_config.iterate_objects(model))
    compiled = model.get("compile_config")
    compiled = compiled if isinstance(compiled, dict) else {}
    heads, num_parameters = _read_weights(archive, [entry for entry in entries if entry.is_head])
    return FileDescription(
        path=path,
        model_class=entries[0].class_name,
        model_name=_text(entries[0].config.get("name")),
        heads=tuple(heads),
        inputs=tuple(_describe_input(*one) for one in _config.list_inputs(model)),
        num_outputs=_config.count_outputs(model),
        keras_binclf_version=_config.get_versions(entries),
        keras_version=_text(archive.metadata.get("keras_version")),
        backend=_config.get_backend(entries),
        date_saved=_text(archive.metadata.get("date_saved")),
        num_parameters=num_parameters,
        package_classes=_list_classes(entry for entry in entries if entry.package == PACKAGE),
        custom_classes=_list_classes(entry for entry in entries if entry.is_custom),
        optimizer=_config.name_of(compiled.get("optimizer")),
        loss=_config.name_of(compiled.get("loss")),
        compiled=bool(compiled),
        notes=tuple(_iterate_notes(archive, entries)),
    )


def _read_weights(archive: Archive, heads: list[Entry]) -> tuple[list[HeadDescription], int | None]:
    if archive.weights is None:
        return [_describe_head(head, None) for head in heads], None
    with open_weights(archive.weights) as file:
        described = [_describe_head(head, read_threshold(file, head)) for head in heads]
        return described, count_parameters(file)


def _describe_head(head: Entry, threshold: float | None) -> HeadDescription:
    names: Any = head.config.get("class_names")
    prior: Any = head.config.get("prior")
    activation = head.config.get("activation", "sigmoid")
    return HeadDescription(
        path="/".join(name for _, name in head.way),
        class_name=head.class_name,
        activation=None if activation is None else str(activation),
        threshold=threshold,
        class_names=tuple(map(str, names)) if isinstance(names, list) else None,
        prior=float(prior) if is_real(prior) else None,
    )


def _describe_input(name: str | None, shape: Any, dtype: Any) -> InputDescription:
    known = isinstance(shape, list) and all(size is None or is_integer(size) for size in shape)
    return InputDescription(name, tuple(shape) if known else None, _text(dtype))


def _list_classes(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted({entry.class_name for entry in entries}))


def _iterate_notes(archive: Archive, entries: list[Entry]) -> Iterator[str]:
    if archive.weights is None:
        size = archive.weights_size
        yield f"The weights take {size:,} bytes and were not read." if size else NO_WEIGHTS
    for name in _list_classes(entry for entry in entries if entry.package == PACKAGE):
        if name not in REGISTERED:
            yield f"{name} is not in keras_binclf {__version__}: pip install --upgrade keras-binclf"
    for name in _list_classes(entry for entry in entries if entry.is_closed):
        yield f"The file does not list what {name} holds, which may be more heads."
    if any(entry.class_name == "__lambda__" for entry in entries):
        yield "It holds a lambda, which Keras runs with safe_mode=False only: do you trust it?"


def _escape(line: str) -> str:
    """Return a line that a terminal shows as it is: names come from the file."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _or_unknown(value: Any) -> Any:
    return "unknown" if value is None else value
