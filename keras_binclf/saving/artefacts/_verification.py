"""Comparing an artefact with its model, on rows that are given or made up."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf._data.heads import select_tensor
from keras_binclf._data.inputs import ModelInputs
from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._format import Format
from keras_binclf.saving.artefacts._inputs import TEXT
from keras_binclf.saving.artefacts._sample import (
    double_size,
    list_unknown_axes,
    make_up_batches,
    name_rows,
    resize_batch,
    shorten_size,
)
from keras_binclf.saving.artefacts._served_inputs import Batch

Array = np.ndarray[Any, Any]

QUANTIZED_SHARE = 0.25
"""How much quantization may change probabilities: on average, as a share of their mean absolute
deviation, because those of a rare class are all small. Single ones, in the middle of a steep
sigmoid, change by more. With a share of 1, all could be the same."""
LARGEST_OWN_DIFFERENCE = 1e-3
"""If the model itself differs by more from call to call, it is not rounding."""
WAY_OUT = (
    "Give rows like those that will be scored as `sample`; if they still differ and you accept it, "
    "export with `verify=False`."
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How the outputs of an artefact compare with the model's.

    Attributes:
        num_rows: number of rows that were compared.
        max_difference: the largest difference of a probability.
        num_disagreements: number of labels that differ.
    """

    num_rows: int
    max_difference: float
    num_disagreements: int


class Verification:
    """Rows, and the probabilities and labels that the model has for them.

    Args:
        model: built Keras model.
        head: its head.
        inputs: its inputs.
        given: rows, one array for each input, or None to make them up.
        tables: a table for each encoder, by input: of the rows, or made up.
        owner: name of the public function, for messages.

    Raises:
        ValueError: if rows are needed, do not fit the model, or have no probability.
    """

    def __init__(
        self,
        model: keras.Model,
        head: BinaryHead,
        inputs: ModelInputs,
        given: list[Array] | None,
        tables: Mapping[str, Any],
        owner: str,
    ) -> None:
        self.model, self.head, self.inputs, self.owner = model, head, inputs, owner
        self._check_text()
        if given is None:
            self.batches = list(make_up_batches(model, inputs, tables, owner))
            self.answers = [self._answer_made_up(batch) for batch in self.batches]
        else:
            self.batches = [name_rows(inputs, given)]
            self.answers = [self._answer(self.batches[0])]
            self._add_other_size()
        self._check_defined(is_given=given is not None)

    def _check_text(self) -> None:
        texts = [spec.name for spec in self.inputs.specs if spec.dtype == "string"]
        backend = keras.backend.backend()
        if texts and backend != "tensorflow":
            raise ValueError(
                f"{self.owner} cannot compare a model with text on the {backend} backend, where "
                f"Keras computes none. Received: input {texts[0]!r}. Export with `verify=False`, "
                "or load the model on TensorFlow and export it there."
            )

    def _answer(self, batch: Batch) -> tuple[Array, Array]:
        """Return the probabilities and labels of `model(x)`."""
        output = self.inputs.call(self.model, _to_tensors(batch))
        return _read(self.model, self.head, output)

    def _answer_made_up(self, batch: Batch) -> tuple[Array, Array]:
        try:
            return self._answer(batch)
        except Exception as error:
            shapes = ", ".join(f"{name!r} {array.shape}" for name, array in batch.items())
            raise ValueError(
                f"{self.owner} made up rows that {self.model.name!r} does not take: {shapes}. "
                f"Give rows: `sample=x`. {type(error).__name__}: {shorten(error)}"
            ) from error

    def _add_other_size(self) -> None:
        """Add rows of another size in the dimensions whose size is not known, if there are any."""
        if not list_unknown_axes(self.inputs):
            return
        for change in (shorten_size, double_size):
            batch = resize_batch(self.inputs, self.batches[0], change)
            try:
                answer = self._answer(batch)
            except Exception:  # Whatever the layer raises for a size that it does not take.
                continue
            self.batches.append(batch)
            self.answers.append(answer)
            return

    def _check_defined(self, is_given: bool) -> None:
        undefined = sum(int(np.isnan(probability).sum()) for probability, _ in self.answers)
        if undefined:
            num = sum(len(probability) for probability, _ in self.answers)
            which = "given" if is_given else "made up"
            raise ValueError(
                f"`sample` of {self.owner} must be rows for which the model has a probability. "
                f"Received: {num} rows that were {which}, of which {undefined} are NaN. Give rows "
                "without missing values, of the ranges that the model was trained on: `sample=x`."
            )

    def compare(
        self,
        outputs: Sequence[Mapping[str, Any]],
        format: Format,
        quantization: str | None,
        rounding: float,
    ) -> Comparison:
        """Compare what an artefact gave for the batches with the answers of the model.

        Args:
            outputs: outputs of the artefact, by name, for each batch.
            format: its format.
            quantization: its quantization, or None.
            rounding: what `measure_rounding` found in the process that wrote it, if another did.

        Raises:
            RuntimeError: if they differ by more than rounding, or quantization, explains.
        """
        expected, label = (np.concatenate(parts) for parts in zip(*self.answers, strict=True))
        found, other = (
            np.concatenate([np.asarray(output[name]).ravel() for output in outputs])
            for name in ("probability", "label")
        )
        if found.shape != expected.shape or other.shape != label.shape:
            raise self._error(format, f"{found.size} probabilities for {expected.size}")
        differences = np.abs(found - expected)
        difference = float(differences.max())
        if quantization is None:
            self._check_rounding(format, difference, rounding)
        else:
            spread = float(np.abs(expected - expected.mean()).mean())
            tolerance = QUANTIZED_SHARE * spread + format.tolerance
            self._check_within(format, float(differences.mean()), tolerance, "on average by")
        # A row within rounding of the threshold may get either label.
        far = np.abs(expected - np.float32(self.head.threshold)) > difference
        disagree = other != label
        if (disagree & far).any():
            count = f"{int((disagree & far).sum())} of {len(label)} rows"
            raise self._error(format, f"other labels than the model for {count}")
        num_rows = sum(len(next(iter(batch.values()))) for batch in self.batches)
        return Comparison(num_rows, difference, int(disagree.sum()))

    def _check_rounding(self, format: Format, difference: float, rounding: float) -> None:
        """Raise unless rounding explains the difference.

        Some layers amplify rounding, such as LayerNormalization over one channel. Then the model
        differs from itself, too, where TensorFlow computes in another order: by as much, and once
        more, an artefact may differ.
        """
        if difference <= format.tolerance:
            return
        own = measure_rounding(self.model, self.head, self.inputs, self.batches)
        own = max(own, rounding)
        tolerance = format.tolerance + 2 * min(own, LARGEST_OWN_DIFFERENCE)
        reason = ""
        if own > format.tolerance:
            reason = (
                f" `model(x)` and `model.predict(x)` themselves differ by up to {own:.1e}: a layer "
                "amplifies rounding, or draws random numbers at inference."
            )
        self._check_within(format, difference, tolerance, "by up to", reason)

    def _check_within(
        self, format: Format, difference: float, tolerance: float, how: str, reason: str = ""
    ) -> None:
        if not difference <= tolerance:
            raise self._error(
                format,
                f"other probabilities than the model: they differ {how} {difference:.1e}, at most "
                f"{tolerance:.0e} was expected, in {sum(len(a) for a, _ in self.answers)} rows",
                reason,
            )

    def _error(self, format: Format, received: str, reason: str = "") -> RuntimeError:
        return RuntimeError(
            f"The {format.name!r} of {self.model.name!r} gives {received}. Nothing was written to "
            f"the path.{reason} {WAY_OUT}"
        )


def measure_rounding(
    model: keras.Model, head: BinaryHead, inputs: ModelInputs, batches: Sequence[Batch]
) -> float:
    """Return the largest difference between the probabilities of `model(x)` and `model.predict(x)`.

    Backends may compute the two in another order.
    """
    if len(inputs.arguments) != 1:
        return 0.0  # `predict` has one argument for all inputs.
    differences = [0.0]
    for batch in batches:
        tensors = _to_tensors(batch)
        once, _ = _read(model, head, inputs.call(model, tensors))
        again, _ = _read(model, head, model.predict(inputs.pack(tensors), verbose=0))
        differences.append(float(np.abs(once - again).max()))
    return max(differences)


def _read(model: keras.Model, head: BinaryHead, outputs: Any) -> tuple[Array, Array]:
    """Return the probabilities and labels in the outputs of a model, as vectors."""
    output = select_tensor(model, head, outputs)
    probability = keras.ops.convert_to_numpy(head.probabilities(output))
    label = keras.ops.convert_to_numpy(head.labels(output))
    return probability.astype("float32").ravel(), label.ravel()


def shorten(error: Exception) -> str:
    """Return the last line of a message, which may be pages."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__


def _to_tensors(batch: Batch) -> list[Any]:
    """Return the arrays as a model takes them: Keras converts them, but no text."""
    if not any(array.dtype.kind in TEXT for array in batch.values()):
        return list(batch.values())
    return [keras.ops.convert_to_tensor(array) for array in batch.values()]
