"""Raw columns as inputs of an artefact: their names and dtypes."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from keras_binclf._data.inputs import InputSpec, ModelInputs, list_schemas
from keras_binclf.layers.features.raw_columns import takes_text

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table as an input of an artefact.

    Attributes:
        input: name of the input.
        schema: the column in the schema of the encoder.
    """

    input: str
    schema: Json

    @property
    def is_text(self) -> bool:
        """Whether the input is text; otherwise it is float64."""
        return takes_text(self.schema["kind"], self.schema["source"])

    @property
    def spec(self) -> InputSpec:
        """The input."""
        return InputSpec(self.input, (), "string" if self.is_text else "float64")


def list_columns(
    inputs: ModelInputs, simplify: Callable[[str], str], taken: Sequence[str]
) -> dict[str, tuple[Column, ...]]:
    """Return the columns that stand for each input with an encoder, by the name of that input.

    A column keeps its name. One without a name is `column_3`, by its place in the table. Where a
    format cannot tell a name from another, the name of the model's input and a slash go before it.

    Args:
        inputs: inputs of the model.
        simplify: returns the part of a name by which a format tells inputs apart.
        taken: simple names of other inputs and outputs.
    """
    tables = list_schemas(inputs)
    places = [
        (name, i, schema)
        for name, schemas in tables.items()
        for i, schema in enumerate(schemas)
        if schema["kind"] != "ignored"
    ]
    numbered = [f"column_{i}" for _, i, _ in places]
    plain = [
        schema["name"] if isinstance(schema["name"], str) and schema["name"] else number
        for (_, _, schema), number in zip(places, numbered, strict=True)
    ]
    prefixed, last = (
        [f"{name}/{own}" for (name, _, _), own in zip(places, names, strict=True)]
        for names in (plain, numbered)
    )
    names = _choose(plain, _choose(prefixed, last, simplify, taken), simplify, taken)
    columns = [Column(name, schema) for name, (_, _, schema) in zip(names, places, strict=True)]
    owners = [name for name, _, _ in places]
    return {
        table: tuple(c for c, owner in zip(columns, owners, strict=True) if owner == table)
        for table in tables
    }


def _choose(
    names: Sequence[str],
    others: Sequence[str],
    simplify: Callable[[str], str],
    taken: Sequence[str],
) -> list[str]:
    """Return each name that a format can tell from all others, and else the other one."""
    counts = Counter(map(simplify, names)) + Counter(taken)
    pairs = zip(names, others, strict=True)
    return [name if counts[simplify(name)] == 1 else other for name, other in pairs]
