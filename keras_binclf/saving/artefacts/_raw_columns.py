"""Raw columns as inputs of an artefact: their names and dtypes, and rows for them."""

import dataclasses
from typing import Any

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
        return self.schema["source"] == "text" and self.schema["kind"] in ("category", "boolean")
