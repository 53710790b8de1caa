"""Observation of all optimizers of the Adam family that train a model."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_binclf._validation import Tensor, error_message
from keras_binclf.callbacks.adam_moments._arguments import OWNER
from keras_binclf.callbacks.adam_moments._compiling import compile_reading, copy_all
from keras_binclf.callbacks.adam_moments._memory import Record
from keras_binclf.callbacks.adam_moments._optimizers import (
    SUPPORTED,
    Moments,
    Reader,
    find_adams,
    get_counter,
    list_orthogonalised,
    may_skip,
)
from keras_binclf.callbacks.adam_moments._watch import Schedule, Watch, list_watched


class Watches:
    """Observes the logged variables of a model, batch by batch.

    Args:
        optimizer: None for the one that the model was compiled with, an optimizer, or the name of
            the model's attribute that holds it.
        variables: None, a regular expression, or a function of a path.
        quantities: tuple of str, names of quantities.
        schedule: function of a step that tells whether it is logged.
    """

    def __init__(
        self,
        optimizer: Any,
        variables: str | Callable[[str], bool] | None,
        quantities: tuple[str, ...],
        schedule: Schedule,
    ) -> None:
        self.given, self.variables = optimizer, variables
        self.quantities, self.schedule = quantities, schedule
        self.kept: list[Watch] = []  # so that the next training need not compile again
        self.reset()

    def reset(self) -> None:
        """Let go of the tensors of a training that has ended, also with an error."""
        for watch in self.kept:
            watch.forget()
        self.model: Any = None
        self.optimizer: Any = None
        self.watches: list[Watch] | None = None
        self.first_values: dict[int, Tensor] | None = None
        self.waiting: list[tuple[Watch, int, Tensor]] = []

    def begin_training(self, model: Any) -> None:
        """Find the optimizer and its variables, so that errors come before the first step."""
        self.reset()
        self.model, self.optimizer = model, self._find_optimizer(model)
        self._find_adams()
        if self.optimizer.built:
            self._make_watches()
        elif self.model.built and self.given is None:
            self._check_chosen([variable.path for variable in self.model.trainable_variables])

    def begin_epoch(self) -> None:
        """Read the counts of steps anew, since callbacks may have set them back."""
        for watch in self.watches or ():
            watch.lose_count()

    def begin_batch(self) -> None:
        """Take snapshots where the next batch may complete a scheduled step."""
        if self.watches is None and self.optimizer.built:
            self._make_watches()
        if self.watches is None:
            self.first_values = self._read_first()
        for watch in self.watches or ():
            watch.begin_batch()

    def end_batch(self, epoch: int) -> None:
        """Start the computation of the quantities of the last batch."""
        if self.first_values is not None:
            values, self.first_values = self.first_values, None
            if self.optimizer.built:
                self._make_watches()
            for watch in self.watches or ():
                watch.begin_first(values)
        for watch in self.watches or ():
            numbers = watch.end_batch()
            if numbers is not None:
                self.waiting.append((watch, epoch, numbers))

    def drain(self, run: int) -> list[Record]:
        """Return the records of the computations that were started before."""
        waiting, self.waiting = self.waiting, []
        records = []
        for watch, epoch, numbers in waiting:
            found = watch.derive(numbers)
            if found is not None:
                step, values = found
                records.append(Record(run, epoch, step, watch.names, watch.sizes, values))
        return records

    def _find_optimizer(self, model: Any) -> Any:
        given = "optimizer" if self.given is None else self.given
        optimizer = getattr(model, given, None) if isinstance(given, str) else given
        if optimizer is None and self.given is None:
            raise ValueError(
                f"{OWNER} needs a compiled model. Received: model={getattr(model, 'name', None)!r},"
                ' which has no optimizer. Call `model.compile("adam", ...)` first.'
            )
        if self.given is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
            name = getattr(model, "name", None)
            expected = f"the name of an attribute of {name!r} that holds an optimizer"
            hint = f"The attribute is {optimizer!r}. Set it before training."
            raise ValueError(error_message("optimizer", OWNER, expected, given, hint))
        return optimizer

    def _find_adams(self) -> list[Any]:
        adams = find_adams(self.optimizer)
        # A MultiOptimizer may choose its optimizers only when it is built.
        chooses = hasattr(self.optimizer, "optimizers") and not self.optimizer.built
        if not adams and not chooses:
            raise TypeError(
                f"{OWNER} needs an optimizer that keeps Adam's moments: {SUPPORTED}. "
                f"Received: optimizer={type(self.optimizer).__name__}."
            )
        return adams

    def _make_watches(self) -> None:
        watched = list_watched(self._find_adams())
        self._check_chosen([name for *_, names in watched for name in names])
        kept, self.kept = self.kept, []
        for adam, moments, names in watched:
            chosen = [i for i, name in enumerate(names) if self._is_logged(moments[i], name)]
            if chosen:
                rows, keys = [moments[i] for i in chosen], tuple(names[i] for i in chosen)
                same = [watch for watch in kept if watch.is_for(self.model, adam, rows)]
                self.kept.append(same[0] if same else self._make_watch(adam, rows, keys))
        self.watches = self.kept
        for watch in self.watches:
            watch.warn_of_rounding()

    def _make_watch(self, adam: Any, moments: Sequence[Moments], names: tuple[str, ...]) -> Watch:
        is_custom = self.given is not None or _has_train_step(self.model)
        skips = may_skip(self.optimizer)
        return Watch(
            *(self.model, adam, moments, names, self.quantities, self.schedule, skips, is_custom)
        )

    def _read_first(self) -> dict[int, Tensor]:
        """Return the values of the variables before the first batch, which builds the optimizer."""
        variables = [get_counter(adam) for adam in self._find_adams()]
        variables += self.model.trainable_variables if self.model.built else []
        values = compile_reading(copy_all, Reader(self.model, variables), False)()
        return dict(zip(map(id, variables), values, strict=True))

    def _check_chosen(self, paths: list[str]) -> None:
        if any(self._is_chosen(path) for path in paths):
            return
        left_out = [path for adam in find_adams(self.optimizer) for path in _list_left_out(adam)]
        hint = ""
        if left_out:
            hint = (
                f"Muon orthogonalises the steps of {', '.join(left_out)}, which have no second "
                "moment and are not logged. Its `exclude_layers` trains layers by Adam instead."
            )
        if not paths:
            raise ValueError(
                f"{OWNER} needs a variable that is trained by Adam. Received: "
                f"optimizer={type(self.optimizer).__name__}. {hint}".rstrip()
            )
        expected = f"chosen so that it matches a trainable variable ({', '.join(paths)})"
        raise ValueError(error_message("variables", OWNER, expected, self.variables, hint))

    def _is_logged(self, moments: Moments, name: str) -> bool:
        # A model that is compiled again with its optimizer keeps the moments of frozen layers. In a
        # `train_step` of one's own, a variable may be trained though its layer is frozen.
        is_trained = moments.weight.trainable or self.given is not None
        return self._is_chosen(name) and is_trained

    def _is_chosen(self, path: str) -> bool:
        if self.variables is None:
            return True
        if callable(self.variables):
            return bool(self.variables(path))
        return re.search(self.variables, path) is not None


def _has_train_step(model: Any) -> bool:
    """Whether the class of a model has a `train_step` of its own."""
    own: bool = getattr(type(model), "train_step", None) is not keras.Model.train_step
    return own


def _list_left_out(adam: Any) -> list[str]:
    return list_orthogonalised(adam) if adam.built else []
