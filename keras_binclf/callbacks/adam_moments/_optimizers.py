"""Optimizers that keep Adam's moments, and the attributes that hold them.

Keras has no public name for the moments. All private attributes of optimizers that we read are read
here, and `tests/test_adam_optimizers.py` fails if one of them is gone.
"""

import dataclasses
from typing import Any, NamedTuple

import keras

from keras_binclf._validation import Tensor
from keras_binclf.callbacks.adam_moments._compiling import read_variable


@dataclasses.dataclass(frozen=True)
class Family:
    """The attributes in which a class of optimizers keeps its moments and their decays.

    Attributes:
        first: str, attribute with the first moments.
        second: str, attribute with the second moments.
        beta: str, name of the decays, without their number.
        norm: bool, whether `second` is a norm of the gradients, and not of their squares (Adamax).
        nesterov: bool, whether the step looks one step ahead (Nadam).
    """

    first: str = "_momentums"
    second: str = "_velocities"
    beta: str = "beta"
    norm: bool = False
    nesterov: bool = False


FAMILIES: dict[type, Family] = {
    keras.optimizers.Adam: Family(),  # and AdamW, which is one
    keras.optimizers.Nadam: Family(nesterov=True),
    keras.optimizers.Adamax: Family("_m", "_u", norm=True),
    keras.optimizers.Lamb: Family(),
    # Its first moments are found by `_list_all`, since their name differs between versions.
    keras.optimizers.Muon: Family("", "adam_velocities", beta="adam_beta"),
}

SUPPORTED = (
    "Adam, AdamW, Nadam, Adamax, Lamb or Muon, also inside a LossScaleOptimizer or a MultiOptimizer"
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The hyperparameters of an optimizer that its moments depend on.

    Attributes:
        beta_1: float, decay of the first moment a step.
        beta_2: float, decay of the second moment a step.
        epsilon: float, the number added to the root of the second moment.
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
    """A trainable variable and its moments.

    Attributes:
        first: keras.Variable, the first moment.
        second: keras.Variable, the second moment, or for Adamax the norm.
        maximum: keras.Variable, the largest second moment so far, which AMSGrad divides by, or
            None.
        weight: keras.Variable, the trained variable.
    """

    first: keras.Variable
    second: keras.Variable
    maximum: keras.Variable | None
    weight: keras.Variable


def find_adams(optimizer: Any) -> list[Any]:
    """Return the optimizers of the Adam family in `optimizer`, which may wrap several.

    A `MultiOptimizer` may hold others too, which are left out. It adds those that a callable
    chooses when it is built.
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
    """Return the family of an optimizer."""
    return next(family for cls, family in FAMILIES.items() if isinstance(adam, cls))


def make_rule(adam: Any) -> Rule:
    """Return the hyperparameters of `adam`."""
    family = find_family(adam)
    return Rule(
        beta_1=float(getattr(adam, f"{family.beta}_1")),
        beta_2=float(getattr(adam, f"{family.beta}_2")),
        epsilon=float(adam.epsilon),
        accumulation=adam.gradient_accumulation_steps or 1,
        norm=family.norm,
        nesterov=family.nesterov,
        amsgrad=bool(getattr(adam, "amsgrad", False)),
    )


def list_moments(adam: Any) -> list[Moments]:
    """Return the moments of a built optimizer, one for each variable that it trains by Adam.

    Variables that are overwritten by their gradient (scales of float8) have none, and those whose
    steps Muon orthogonalises have no second one.
    """
    rows = (Moments(*row) for row in _list_all(adam))
    return [row for row in rows if row.first is not None and row.second is not None]


def list_orthogonalised(adam: Any) -> list[str]:
    """Return the paths of the variables of a built Muon that it does not train by Adam."""
    if not isinstance(adam, keras.optimizers.Muon):
        return []
    return [weight.path for _, second, _, weight in _list_all(adam) if second is None]


def _list_all(adam: Any) -> list[tuple[Any, Any, Any, keras.Variable]]:
    """Return first and second moment, maximum and variable; None for those that are not kept."""
    family, weights = find_family(adam), adam._trainable_variables
    names = [family.first] if family.first else ["momentums", "adam_momentums"]
    found = next(getattr(adam, name) for name in names if hasattr(adam, name))
    firsts, seconds = (_to_list(x, weights) for x in (found, getattr(adam, family.second)))
    maxima = adam._velocity_hats if make_rule(adam).amsgrad else [None] * len(weights)
    return list(zip(firsts, seconds, maxima, weights, strict=True))


def _to_list(moments: Any, weights: list[keras.Variable]) -> list[Any]:
    """Return moments in the order of the variables; Muon of Keras 3.11 keeps them by path."""
    if isinstance(moments, dict):
        return [moments.get(weight.path) for weight in weights]
    return list(moments)


def get_counter(adam: Any) -> keras.Variable:
    """Return the count of applied gradients, of which `accumulation` make one step."""
    return adam._iterations


def get_product(adam: Any) -> keras.Variable | None:
    """Return the product of Nadam's decays so far, and None for other optimizers."""
    return adam._u_product if find_family(adam).nesterov else None


class Reader:
    """Reads the current values of variables, also within an epoch, without making the model wait.

    In an epoch on JAX the trainer holds the values of its variables. `callback.model` would write
    all of them back after each step. Variables outside of the trainer's
    state (of an optimizer that is not `model.optimizer`) hold their values themselves.

    Args:
        model: keras.Model, the trained one.
        variables: list of variables of the model and of optimizers.
    """

    def __init__(self, model: Any, variables: list[keras.Variable]) -> None:
        self.model, self.variables = model, variables
        self.places: list[tuple[str, int] | None] | None = None

    def __call__(self) -> list[Tensor]:
        """Return the values, in the order of the variables."""
        state = None if getattr(self.model, "_jax_state_synced", True) else self.model._jax_state
        if state is None:
            return [read_variable(variable) for variable in self.variables]
        if self.places is None:
            self.places = self._find_places()
        return [
            read_variable(variable) if place is None else state[place[0]][place[1]]
            for variable, place in zip(self.variables, self.places, strict=True)
        ]

    def forget(self) -> None:
        """Find the variables anew: a layer that is frozen changes the order of all."""
        self.places = None

    def _find_places(self) -> list[tuple[str, int] | None]:
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
        return [places.get(id(variable)) for variable in self.variables]
