"""Which optimizers keep Adam's moments, where, and what they make of them.

Keras has no public name for the moments. All private attributes of optimizers that we read are read
here, and `tests/test_adam_moment_logger.py` fails if one of them is gone.
"""

import dataclasses
from typing import Any, NamedTuple

import keras

from keras_binclf._validation import Tensor
from keras_binclf.callbacks.adam_moments._compiling import read_variable


@dataclasses.dataclass(frozen=True)
class Family:
    """Where a class of optimizers keeps its moments.

    Attributes:
        first: str, attribute with the first moments.
        second: str, attribute with the second moments.
        norm: bool, whether `second` is a norm of the gradients, and not of their squares (Adamax).
        nesterov: bool, whether the step looks one step ahead (Nadam).
    """

    first: str = "_momentums"
    second: str = "_velocities"
    norm: bool = False
    nesterov: bool = False


FAMILIES: dict[type, Family] = {
    keras.optimizers.Adam: Family(),  # and AdamW, which is one
    keras.optimizers.Nadam: Family(nesterov=True),
    keras.optimizers.Adamax: Family("_m", "_u", norm=True),
    keras.optimizers.Lamb: Family(),
}

SUPPORTED = (
    "Adam, AdamW, Nadam, Adamax or Lamb, also inside a LossScaleOptimizer or a MultiOptimizer"
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The numbers of an optimizer by which its moments are read.

    Attributes:
        beta_1: float, decay of the first moment a step.
        beta_2: float, decay of the second moment a step.
        epsilon: float, what is added to the root of the second moment.
        accumulation: int, number of counts that make one step.
        norm: bool, as in `Family`.
        nesterov: bool, as in `Family`.
        amsgrad: bool, whether the step divides by the largest second moment so far.
    """

    beta_1: float
    beta_2: float
    epsilon: float
    accumulation: int
    norm: bool
    nesterov: bool
    amsgrad: bool


class Moments(NamedTuple):
    """A trainable variable with what the optimizer keeps about it.

    Attributes:
        first: keras.Variable, its first moment.
        second: keras.Variable, its second moment, or for Adamax the norm.
        maximum: keras.Variable, the largest second moment so far, which AMSGrad divides by.
        weight: keras.Variable, which is trained.
    """

    first: keras.Variable
    second: keras.Variable
    maximum: keras.Variable | None
    weight: keras.Variable


def find_adams(optimizer: Any) -> list[Any]:
    """Return the optimizers of the Adam family in `optimizer`, which may wrap several.

    Of a `MultiOptimizer` only those that are of the family; it adds those that a callable chooses
    when it is built.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return find_adams(optimizer.inner_optimizer)
    inner = getattr(optimizer, "optimizers", None)  # MultiOptimizer, which old Keras does not have
    if isinstance(inner, list):
        return [adam for part in inner for adam in find_adams(part)]
    return [optimizer] if isinstance(optimizer, tuple(FAMILIES)) else []


def may_skip(optimizer: Any) -> bool:
    """Whether a batch may leave the count of steps as it is, as a dynamic loss scale does."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def find_family(adam: Any) -> Family:
    """Return where an optimizer of the Adam family keeps its moments."""
    return next(family for cls, family in FAMILIES.items() if isinstance(adam, cls))


def make_rule(adam: Any) -> Rule:
    """Return the numbers by which the moments of `adam` are read."""
    family = find_family(adam)
    return Rule(
        beta_1=float(adam.beta_1),
        beta_2=float(adam.beta_2),
        epsilon=float(adam.epsilon),
        accumulation=adam.gradient_accumulation_steps or 1,
        norm=family.norm,
        nesterov=family.nesterov,
        amsgrad=bool(getattr(adam, "amsgrad", False)),
    )


def list_moments(adam: Any) -> list[Moments]:
    """Return the moments of a built optimizer, one for each variable that it trains.

    Variables that are overwritten by their gradient (scales of float8) have none.
    """
    family = find_family(adam)
    weights = adam._trainable_variables
    firsts, seconds = getattr(adam, family.first), getattr(adam, family.second)
    maxima = adam._velocity_hats if make_rule(adam).amsgrad else [None] * len(weights)
    rows = zip(firsts, seconds, maxima, weights, strict=True)
    return [Moments(*row) for row in rows if row[0] is not None]


def get_counter(adam: Any) -> keras.Variable:
    """Return the variable that counts batches, of which `accumulation` make one step."""
    return adam._iterations


def get_product(adam: Any) -> keras.Variable | None:
    """Return the product of Nadam's decays so far, and None for other optimizers."""
    return adam._u_product if find_family(adam).nesterov else None


class Reader:
    """Reads what variables hold now, also within an epoch, without making the model wait.

    In an epoch on JAX the variables are empty, and the trainer holds the state. Asking for
    `callback.model` would write all of it back after each step.

    Args:
        model: keras.Model, which is trained.
        variables: list of its variables and those of its optimizer.
    """

    def __init__(self, model: Any, variables: list[keras.Variable]) -> None:
        self.model, self.variables = model, variables
        self.places: list[tuple[str, int]] | None = None

    def __call__(self) -> list[Tensor]:
        """Return the values, in the order of the variables."""
        state = None if getattr(self.model, "_jax_state_synced", True) else self.model._jax_state
        if state is None:
            return [read_variable(variable) for variable in self.variables]
        if self.places is None:
            self.places = self._find_places()
        return [state[group][index] for group, index in self.places]

    def forget(self) -> None:
        """Find the variables anew: a layer that is frozen changes the order of all."""
        self.places = None

    def _find_places(self) -> list[tuple[str, int]]:
        groups = {
            "trainable_variables": self.model.trainable_variables,
            "optimizer_variables": self.model.optimizer.variables,
            "non_trainable_variables": self.model.non_trainable_variables,
        }
        places = {
            id(variable): (group, index)
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }
        return [places[id(variable)] for variable in self.variables]
