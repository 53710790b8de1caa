"""Tables of a search: encoded once for all of its trials, and anew for each fold."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_binclf._data.inputs import InputSpec, ModelInputs
from keras_binclf._data.row_reader import RowReader
from keras_binclf._data.scored_rows import iterate_batches
from keras_binclf._data.tables import is_dataset, is_frame, is_pandas_frame, to_array
from keras_binclf.layers import TabularEncoder
from keras_binclf.tuner.trial.data import Data, Given, take_data
from keras_binclf.tuner.trial.folds import OWNER, Array
from keras_binclf.tuner.trial.inputs import SearchInput, SearchInputs
from keras_binclf.tuner.trial.row_check import ARGUMENTS, VALIDATION, name_batch

UNENDING = "Its tables are encoded before the first trial: give some of its batches."


@dataclasses.dataclass(frozen=True)
class FoldRows:
    """Rows of one fold.

    Attributes:
        inputs: those of the model of the fold, whose encoders learned from its training rows.
        data: training rows, and the held-out rows as validation rows.
    """

    inputs: SearchInputs
    data: Data


class EncodedRows:
    """The rows of a search, with matrices in the places of tables.

    Args:
        raw: arguments of `fit` or `preflight`, as the user wrote them.
        inputs: those of the models.

    Attributes:
        raw: those arguments.
        given: the same, encoded.
    """

    def __init__(self, raw: Given, inputs: SearchInputs) -> None:
        self.raw = raw
        self.given = encode_given(raw, inputs)
        self._inputs = inputs
        self._folds: list[FoldRows] | None = None

    def is_of(self, raw: Given) -> bool:
        """Whether these rows were encoded from the very same objects."""
        names = [field.name for field in dataclasses.fields(Given)]
        return all(getattr(self.raw, name) is getattr(raw, name) for name in names)

    def divide(self, data: Data) -> Iterable[FoldRows]:
        """Return the rows of each fold, those of tables encoded by what its training rows tell.

        A median or a category that the held-out rows have taught would make their score better
        than that of new rows.

        Args:
            data: the checked rows, with folds.
        """
        pairs = data.folds or []
        if not self._inputs.has_encoders:
            return (FoldRows(self._inputs, take_data(data, *pair)) for pair in pairs)
        if self._folds is None:
            self._folds = [self._encode_fold(data, i) for i in range(len(pairs))]
        return self._folds

    def _encode_fold(self, data: Data, number: int) -> FoldRows:
        assert data.folds is not None
        rows, held_out = data.folds[number]
        fold = take_data(data, rows, held_out)
        encoded = zip(*map(keras.tree.flatten, (fold.x, fold.validation[0])), strict=True)
        inputs, parts = [], []
        raw = _split_inputs(self.raw.x, self._inputs, ARGUMENTS[0])
        for part, table, pair in zip(self._inputs.parts, raw, encoded, strict=True):
            if part.encoder is not None and not keras.ops.is_tensor(table):
                name = f"fold {number} of {part.name_part(ARGUMENTS[0])}"
                part, pair = _learn_anew(part, part.encoder, table, (rows, held_out), name)
            inputs.append(part)
            parts.append(pair)
        of_fold = SearchInputs(self._inputs.pack(inputs))
        x, held_out_x = (self._inputs.pack(values) for values in zip(*parts, strict=True))
        validation = (held_out_x, *fold.validation[1:])
        return FoldRows(of_fold, dataclasses.replace(fold, x=x, validation=validation))


class EncodedBatches(keras.utils.PyDataset):
    """Batches of a data set of tables, encoded.

    Args:
        batches: features, labels and perhaps weights of each batch.
    """

    def __init__(self, batches: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return one batch."""
        return self.batches[index]


def encode_given(given: Given, inputs: SearchInputs) -> Given:
    """Return the arguments of `fit` with matrices in the places of tables for an encoder.

    Args:
        given: the arguments, not checked.
        inputs: those of the models.

    Raises:
        TypeError: for a table of the wrong kind.
        ValueError: for a table that the encoder does not take.
    """
    if not inputs.has_encoders:
        return given
    x, validation = given.x, given.validation_data
    if is_dataset(x):
        x = _encode_dataset(x, inputs)
    elif given.y is not None:
        x = _encode_parts(x, inputs, ARGUMENTS[0])
    if is_dataset(validation):
        validation = _encode_dataset(validation, inputs, "validation ")
    elif isinstance(validation, tuple | list) and validation:
        held_out = _encode_parts(validation[0], inputs, VALIDATION[0])
        validation = (held_out, *validation[1:])
    return dataclasses.replace(given, x=x, validation_data=validation)


def _split_inputs(x: Any, inputs: SearchInputs, name: str) -> list[Any]:
    """Return the part of `x` for each input, unchanged."""
    if not inputs.is_single:
        return RowReader(inputs.model_inputs, OWNER, name).collect(x)
    key = inputs.structure.name
    is_named = isinstance(x, Mapping) and list(x) == [key]
    return [x[key] if is_named and (is_frame(x[key]) or np.ndim(x[key]) > 1) else x]


def _encode_parts(x: Any, inputs: SearchInputs, name: str, *, is_batch: bool = False) -> Any:
    values = zip(inputs.parts, _split_inputs(x, inputs, name), strict=True)
    return inputs.pack(
        value if part.encoder is None else _encode(part, value, part.name_part(name), is_batch)
        for part, value in values
    )


def _encode(part: SearchInput, table: Any, name: str, is_batch: bool) -> Any:
    spec = InputSpec(part.name, part.shape, "float32", part.name, encoder=part.encoder)
    reader = RowReader(ModelInputs((spec,), (spec,), ("inputs",)), OWNER, name, is_batch=is_batch)
    try:
        return reader.collect(table)[0]
    except (TypeError, ValueError) as error:
        raise _name_argument(error, name) from error


def _name_argument(error: Exception, name: str) -> Exception:
    """Return the error of an encoder with the name of the argument that holds the table."""
    if OWNER in str(error):
        return error
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"`{name}` of {OWNER} cannot be encoded. {error}")


# ---- data sets


def _encode_dataset(dataset: Any, inputs: SearchInputs, which: str = "") -> Any:
    """Return a data set of tables as one of encoded batches, and any other unchanged."""
    if inspect.isgenerator(dataset):
        return dataset  # It is refused later.
    first = next(iterate_batches(OWNER, dataset, steps=1), None)
    if first is None or not _has_tables(first[0], inputs):
        return dataset
    batches = enumerate(iterate_batches(OWNER, dataset, None, UNENDING))
    return EncodedBatches(
        [_encode_batch(batch, inputs, name_batch(number, which)) for number, batch in batches]
    )


def _has_tables(features: Any, inputs: SearchInputs) -> bool:
    """Whether a batch has a table for an encoder, rather than an encoded matrix."""
    parts = zip(inputs.parts, _split_inputs(features, inputs, "x"), strict=True)
    return any(
        part.encoder is not None and not (isinstance(x, np.ndarray) or keras.ops.is_tensor(x))
        for part, x in parts
    )


def _encode_batch(batch: Any, inputs: SearchInputs, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return a batch in arrays, which every backend takes, with matrices for tables."""
    x, y, weights = batch
    x = keras.tree.map_structure(_to_host, _encode_parts(x, inputs, names[0], is_batch=True))
    labels = to_array(y, names[1], OWNER, allow_text=True)
    if weights is None:
        return x, labels
    return x, labels, to_array(weights, names[2], OWNER)


def _to_host(value: Any) -> Any:
    return keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value


# ---- folds


def _learn_anew(
    part: SearchInput, encoder: TabularEncoder, table: Any, rows: tuple[Array, Array], name: str
) -> tuple[SearchInput, tuple[Array, Array]]:
    """Return an input whose encoder learned from some rows, and those and the others encoded.

    Args:
        part: the input.
        encoder: its encoder, which learned from all rows.
        table: all rows.
        rows: numbers of the rows to learn from, and of the others.
        name: of the table, for messages.
    """
    train, held_out = (_take_table(table, some) for some in rows)
    try:
        own = _make_anew(encoder)
        own.adapt(train)
        encoded = own.encode(train), own.encode(held_out)
    except (TypeError, ValueError) as error:
        raise _name_argument(error, name) from error
    return dataclasses.replace(part, shape=(own.num_encoded,), encoder=own), encoded


def _make_anew(encoder: TabularEncoder) -> TabularEncoder:
    """Return an equal encoder that has learned no more than the kinds of the columns.

    The kinds stay, since few rows may show another one: text is a number until the first word.
    """
    of_categories = {str(name): one for name, one in encoder.kinds.items()}
    kinds = {}
    for column in encoder.columns or ():
        own = of_categories.get(str(column.name), {}) if column.kind == "category" else {}
        kinds[column.name] = {**own, "kind": column.kind}
    config = {**encoder.get_config(), "columns": None, "kinds": kinds}
    copy: TabularEncoder = type(encoder).from_config(config)
    return copy


def _take_table(table: Any, rows: Array) -> Any:
    """Return some rows of a table of any form that an encoder takes."""
    if isinstance(table, Mapping):
        return {name: _take_values(column, rows) for name, column in table.items()}
    if isinstance(table, np.ndarray):
        return table[rows]
    if is_pandas_frame(table):
        return table.iloc[rows]
    import narwhals

    return narwhals.from_native(table, eager_only=True)[rows.tolist()].to_native()


def _take_values(column: Any, rows: Array) -> Any:
    """Return some values of a column of a dict."""
    if isinstance(column, list | tuple):
        return [column[i] for i in rows]
    if hasattr(column, "iloc"):
        return column.iloc[rows]
    if hasattr(column, "to_pylist"):
        return column.take(rows.tolist())
    return _to_host(column)[rows]
