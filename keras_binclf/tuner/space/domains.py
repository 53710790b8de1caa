"""The values that a hyperparameter can have: one of several, a range, or a single fixed value."""

import dataclasses
from typing import Any

from keras_binclf._validation import is_integer


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values of the same type."""

    values: tuple[Any, ...]
    default: Any

    def ask(self, hp: Any, name: str) -> Any:
        """Return the value of this trial; register the hyperparameter if it is new."""
        if set(self.values) == {True, False} and isinstance(self.values[0], bool):
            return hp.Boolean(name, default=self.default)
        return hp.Choice(name, list(self.values), default=self.default)

    def list_values(self) -> list[Any]:
        """Return all values."""
        return list(self.values)


@dataclasses.dataclass(frozen=True)
class Range:
    """A number between two others, both included."""

    min_value: Any
    max_value: Any
    default: Any
    sampling: str = "linear"
    step: Any = None

    def ask(self, hp: Any, name: str) -> Any:
        """Return the value of this trial; register the hyperparameter if it is new."""
        method = hp.Int if is_integer(self.min_value) else hp.Float
        return method(name, **dataclasses.asdict(self))

    def list_values(self) -> list[Any]:
        """Return all values of a range of integers."""
        return list(range(self.min_value, self.max_value + 1))


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A value that is not searched."""

    value: Any

    def ask(self, hp: Any, name: str) -> Any:
        """Return the value; nothing is registered."""
        return self.value

    def list_values(self) -> list[Any]:
        """Return the one value."""
        return [self.value]

    @property
    def default(self) -> Any:
        """The value."""
        return self.value


Domain = Choice | Range | Fixed
