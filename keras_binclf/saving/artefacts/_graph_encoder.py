"""The encoding of raw columns in a TensorFlow graph, from the schema of a `TabularEncoder`.

It gives the matrix that `encode` gives on the host, bit for bit, with operations that the converter
to ONNX knows.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.saving.artefacts._raw_columns import Column

MISSING, UNKNOWN, RARE, FIRST = 0, 1, 2, 3
"""Codes of categories in the matrix; that of the category with index i is `FIRST + i`. Rare words
are not in the schema: where there were some, all that are not listed have their code."""
SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]
BLANKS = ["", *SPACES, "\r\n", *(" " * length for length in range(2, 9))]
"""Text that is missing: a graph cannot strip it, so these are listed."""
NUM_FREE_LETTERS = 6
"""Words up to this length are listed in each case of each letter: 64 at most."""
DAYS_PER_YEAR = 365.2425


class GraphEncoder:
    """Encodes the columns of one table in a graph.

    Args:
        columns: the columns that the model uses.

    Attributes:
        tables: tables of TensorFlow, which whoever saves the graph must track.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.tables: list[Any] = []
        self._functions = [self._make(column) for column in columns]

    def __call__(self, tensors: Iterable[Tensor]) -> Tensor:
        """Return the matrix of float32 for the values of each column, of shape `(batch,)`."""
        pairs = zip(self._functions, tensors, strict=True)
        return ops.stack([part for function, tensor in pairs for part in function(tensor)], axis=1)

    def _make(self, column: Column) -> Callable[[Tensor], list[Tensor]]:
        """Return the function from the values of a column to its columns of the matrix."""
        schema = column.schema
        if schema["kind"] == "date":
            return lambda days: _split_date(days, schema["offset"], schema["parts"])
        if schema["kind"] == "number":
            return lambda values: [_to_float32(values - schema["offset"])]
        if schema["kind"] == "boolean":
            return self._make_boolean(schema) if column.is_text else lambda x: [_to_float32(x)]
        if column.is_text:
            return self._make_lookup(schema["categories"], _find_other_code(schema))
        other = _find_other_code(schema)
        return lambda values: [_match(values, schema["categories"], other)]

    def _make_lookup(self, words: Sequence[str], other: int) -> Callable[[Tensor], list[Tensor]]:
        codes = dict.fromkeys(BLANKS, MISSING)
        codes |= {word: FIRST + i for i, word in enumerate(words)}
        table = self._add_table(codes, other)
        return lambda texts: [_to_float32(table.lookup(texts))]

    def _make_boolean(self, schema: Any) -> Callable[[Tensor], list[Tensor]]:
        spellings = {"false": 1, "true": 2}
        codes = {
            spelled: code
            for key, code in spellings.items()
            for spelled in iterate_cases(schema[key])
        }
        table = self._add_table(codes, 0)
        values = ops.convert_to_tensor([float("nan"), 0.0, 1.0], "float32")
        # A graph cannot raise: text that is no spelling is missing, as blanks are.
        return lambda texts: [ops.take(values, table.lookup(texts))]

    def _add_table(self, codes: dict[str, int], default: int) -> Any:
        import tensorflow as tf

        pairs = tf.lookup.KeyValueTensorInitializer(
            list(codes), list(codes.values()), tf.string, tf.int64
        )
        self.tables.append(tf.lookup.StaticHashTable(pairs, default))
        return self.tables[-1]


def iterate_cases(word: str) -> Iterable[str]:
    """Yield the ways to write a word in lower and upper case: of a long one, those in use."""
    if len(word) > NUM_FREE_LETTERS:
        return sorted({word, word.lower(), word.upper(), word.title(), word.capitalize()})
    letters = [sorted({letter.lower(), letter.upper()}) for letter in word]
    return ("".join(spelled) for spelled in itertools.product(*letters))


def _to_float32(values: Tensor) -> Tensor:
    return ops.cast(values, "float32")


def _find_other_code(schema: Any) -> int:
    return RARE if schema["has_rare"] else UNKNOWN


def _match(values: Tensor, categories: Sequence[float], other: int) -> Tensor:
    """Return the codes of categories that are numbers, and `other` for all other numbers."""
    is_same = ops.equal(
        values[:, None], ops.convert_to_tensor([list(map(float, categories))], "float64")
    )
    steps = ops.arange(FIRST - other, FIRST - other + len(categories))
    found = other + ops.matmul(_to_float32(is_same), _to_float32(steps))
    return ops.where(ops.isnan(values), float(MISSING), found)


def _split_date(days: Tensor, offset: float, parts: Sequence[str]) -> list[Tensor]:
    """Return the parts of a date, given in days since 1970-01-01."""
    whole = ops.floor(days)
    found = {
        "elapsed": lambda: days - offset,
        "time_of_day": lambda: days - whole,
        # 1970-01-01 was a Thursday.
        "day_of_week": lambda: _modulo(whole + 3.0, 7.0),
        "day_of_year": lambda: _modulo(days, DAYS_PER_YEAR),
    }
    return [_to_float32(found[part]()) for part in parts]


def _modulo(values: Tensor, period: float) -> Tensor:
    return values - period * ops.floor(values / period)
