"""Show what Adam does: gradient, moments, bias correction and update of each variable."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import (
    Tensor,
    check_bool,
    check_integer_at_least,
    error_message,
)
from keras_binclf.callbacks.adam_moments._arguments import (
    OWNER,
    check_filepath,
    check_path,
    check_quantities,
    check_variables,
)
from keras_binclf.callbacks.adam_moments._compiling import compile_reading, copy_all
from keras_binclf.callbacks.adam_moments._optimizers import (
    SUPPORTED,
    Moments,
    Reader,
    find_adams,
    get_counter,
    may_skip,
)
from keras_binclf.callbacks.adam_moments._quantities import DEFAULT, QUANTITIES, list_columns
from keras_binclf.callbacks.adam_moments._sinks import KEYS, File, Memory, Record, TensorBoard
from keras_binclf.callbacks.adam_moments._watch import Watch, list_watched

RMS_RATIO_WARNING = 2.3
"""Level of `rms_ratio` that loss spikes followed in Wortsman et al. (2023), section 3."""

FEWEST_ENTRIES = 100
"""Smallest variable of which a high `rms_ratio` is news: that of few entries is high by chance."""


class AdamMomentLogger(keras.callbacks.Callback):
    """Log what Adam does at each variable: gradient, moments, bias correction, update.

    Adam (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980) keeps two running means of each
    gradient `g`, corrects them for their start at 0, and steps by their ratio:

        m_t = β₁ m_{t−1} + (1 − β₁) g_t          m̂_t = m_t / (1 − β₁ᵗ)
        v_t = β₂ v_{t−1} + (1 − β₂) g_t²         v̂_t = v_t / (1 − β₂ᵗ)
        w_t = w_{t−1} − lr · m̂_t / (√v̂_t + ε)

    (Keras's Adam and AdamW add `ε` to the uncorrected `√v_t`, the "epsilon hat" of that paper.)
    Training is the same to the last bit with the logger and without it: it computes from what the
    optimizer keeps, before and after a step, in a function of its own. It watches Adam,
    AdamW, Nadam, Adamax and Lamb, also inside a `LossScaleOptimizer` or `MultiOptimizer`, and with
    clipping, weight decay, gradient accumulation and moving averages of weights.

    The gradient is the one that the optimizer applied (clipped, unscaled, accumulated), from
    `g_t = (m_t − β₁ m_{t−1}) / (1 − β₁)`. In float32 it is exact to about 1e-6 of
    `|m_t| + |m_{t−1}|` at β₁ = 0.9, and to about 6e-8 / (1 − β₁) of it elsewhere. (A variable that
    Keras leaves out of a step for want of a gradient keeps its moments, and is logged as if it had
    got `m` once more.) Where one call trains several batches (`steps_per_execution`), each call
    that completes a scheduled step is one row, at its last step: the gradient is the mean of its
    gradients with the weights that the first moment gives them, `rms_ratio` and Nadam's `m_hat` are
    those of this mean, and the update is that of all its steps.

    Quantities, and the columns that they give:

    - `gradient`: `g_t`. Four columns: `gradient_norm`, `gradient_mean`, `gradient_rms` (root mean
      square) and `gradient_max` (largest absolute value).
    - `m`, `v`: the first and second moment, four columns each. Of Adamax, `v` is the square of its
      norm `u`.
    - `m_hat`, `v_hat`: the bias-corrected ones, four columns each. The step divides by the root of
      `v_hat`; with AMSGrad it is the largest so far, with Adamax it is `v`.
    - `update`: `w_t − w_{t−1}`, with weight decay, constraints, and the jumps of
      `ema_overwrite_frequency`. Four columns. NaN at the first step of a model which that step
      builds, since there was nothing before.
    - `update_ratio`: norm of the update by that of the weights after it.
    - `rms_ratio`: `sqrt(mean(g² / max(v̂, ε²)))`, the size of the gradient compared with what the
      optimizer has got used to. It rises before loss spikes (Wortsman et al., 2023,
      https://arxiv.org/abs/2304.13013).
    - `epsilon_share`: share of the entries with `√v̂ < ε`, which get no gradient to speak of.
    - On request: `weight`, four columns of `w_t`; `gradient_histogram`, `m_histogram`,
      `v_histogram` and `update_histogram`, the number of entries by absolute value in 32 bins of
      two octaves (`…_histogram_00` to `…_31`; the inner edges go from 2^-45 to 2^15).

    A warning comes when `rms_ratio` of a variable of 100 entries or more exceeds 2.3, the level of
    Wortsman et al. (section 3), once for each variable and training; and when the variables are
    of a dtype in which `beta_2` is 1.

    Put the logger first in the list of callbacks: those after it see `adam/…` in the logs, and at
    the end of an epoch have not changed the weights yet. The end of a batch is seen when the next
    one begins, so what a callback does to the weights in `on_train_batch_end` counts as part of the
    update. `train_on_batch` calls no callbacks; in a loop of your own, do it with
    `keras.callbacks.CallbackList([logger], model=model)`. (With JAX's stateless functions, write
    the state back to the variables before each batch begins.)

    Args:
        every_n_steps: int of at least 1, to log the steps that it divides; or a function of a step
            (`optimizer.iterations` after it, from 1) that tells whether it is logged. Defaults to
            `10`.
        variables: `None` for all trainable variables, a regular expression that is searched in
            their paths, or a function of a path. Defaults to `None`.
        quantities: sequence of str, names of quantities. Defaults to `("gradient", "m", "v",
            "m_hat", "v_hat", "update", "update_ratio", "rms_ratio", "epsilon_share")`.
        filepath: str or path of a `.csv` or `.jsonl` file to which rows are added at the end of
            each epoch, or `None`. In `.jsonl`, NaN is `null` and infinity a string. `run` goes on
            from what the file holds. Defaults to `None`.
        log_dir: str or path of a directory for TensorBoard (scalars only), or `None`. Defaults to
            `None`.
        epoch_logs: bool, whether means over the logged steps and variables of an epoch go into
            Keras's logs: `adam/gradient_norm`, `adam/update_ratio`, `adam/rms_ratio`,
            `adam/epsilon_share`, and the largest `adam/rms_ratio_max`. NaN in an epoch without a
            logged step, or with a row that is NaN. Defaults to `True`.

    Attributes:
        DEFAULT: tuple of str, the quantities that are logged unless others are given, so that
            `(*AdamMomentLogger.DEFAULT, "weight")` adds one.
        history: dict from the path of a variable to a dict of arrays: `run` (the training, from 1),
            `epoch`, `step`, and the columns. Kept over several trainings. The second variable of
            one path has `#2` after it.

    Raises:
        TypeError: for an argument of the wrong kind; in training, if the optimizer keeps no moments
            of Adam.
        ValueError: for an argument of the wrong value; in training, if `variables` matches none, if
            the model is not compiled, if `filepath` holds other columns, or if the logger is in use
            by another model.
        OSError: in training, if `filepath` cannot be written.

    Example:

    ```python
    import numpy as np
    from keras_binclf import AdamMomentLogger, binary_classifier

    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("float32")
    model = binary_classifier(4, hidden_units=8)

    logger = AdamMomentLogger(every_n_steps=5, variables="kernel")
    log = model.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[logger]).history
    path = model.trainable_variables[0].path
    assert list(logger.history[path]["step"]) == [5, 10, 15, 20]
    assert logger.history[path]["update_ratio"].max() < 0.1
    assert len(log["adam/update_ratio"]) == 2
    ```
    """

    DEFAULT = DEFAULT

    def __init__(
        self,
        every_n_steps: int | Callable[[int], bool] = 10,
        *,
        variables: str | Callable[[str], bool] | None = None,
        quantities: Sequence[str] = DEFAULT,
        filepath: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        epoch_logs: bool = True,
    ) -> None:
        super().__init__()
        if not callable(every_n_steps):
            every_n_steps = check_integer_at_least(every_n_steps, 1, "every_n_steps", OWNER)
        self.every_n_steps = every_n_steps
        self.variables = check_variables(variables)
        self.quantities = check_quantities(quantities)
        self.filepath = check_filepath(filepath)
        self.log_dir = check_path(log_dir, "log_dir")
        self.epoch_logs = check_bool(epoch_logs, "epoch_logs", OWNER)
        self._memory = Memory(list_columns(self.quantities))
        self._run = 0
        self._is_training = False
        self._sinks: list[File | TensorBoard] = []
        self._kept: list[Watch] = []  # so that the next training need not compile again
        self._reset()

    def _reset(self) -> None:
        for sink in self._sinks:  # of a training that ended with an error
            if isinstance(sink, TensorBoard):
                sink.close()
        for watch in self._kept:
            watch.forget()
        self._watches: list[Watch] | None = None
        self._first_values: dict[int, Tensor] | None = None
        self._waiting: list[tuple[Watch, int, Tensor]] = []
        self._sinks = []
        self._epoch = 0
        self._of_epoch: list[np.ndarray] = []
        self._warned: set[str] = set()

    @property
    def history(self) -> dict[str, dict[str, np.ndarray]]:
        """Logged columns as arrays, by the path of the variable."""
        return self._memory.to_arrays()

    def to_dataframe(self) -> Any:
        """Return all rows as a `pandas.DataFrame`, in the order in which they were logged.

        Returns:
            DataFrame with a row for each step and variable: `run`, `epoch`, `step`, `variable`, and
            the columns of the quantities.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`AdamMomentLogger.to_dataframe` needs pandas: `pip install pandas`. "
                "`AdamMomentLogger.history` has the same as arrays."
            ) from error
        parts = [
            pd.DataFrame({"variable": variable, **columns})
            for variable, columns in self.history.items()
        ]
        if not parts:
            return pd.DataFrame(columns=[*KEYS, *self._memory.columns])
        frame = pd.concat(parts, ignore_index=True)[[*KEYS, *self._memory.columns]]
        return frame.sort_values(["run", "step"], kind="stable", ignore_index=True)

    def set_model(self, model: Any) -> None:
        """Take the model, unless another one is being trained."""
        if self._is_training and model is not self._model:
            raise ValueError(
                f"{OWNER} watches one model at a time. Received: model={model.name!r}, while it is "
                f"in use by {self._model.name!r}. Make a logger for each model, also after a "
                "training that ended with an error."
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check the optimizer and the files, so that what is wrong fails before the first step."""
        self._reset()
        self._find_adams()
        if self._model.optimizer.built:
            self._make_watches()
        elif self._model.built:
            self._check_chosen([variable.path for variable in self._model.trainable_variables])
        if self.filepath is not None:
            self._sinks.append(File(self.filepath, self._memory.columns))
        if self.log_dir is not None:
            self._sinks.append(TensorBoard(self.log_dir, self.quantities))
        self._run += 1
        self._is_training = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count from what the optimizer says, since callbacks may have set it back."""
        self._end_batch()
        self._drain()
        self._epoch, self._of_epoch = epoch, []
        for watch in self._watches or ():
            watch.lose_count()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the end of the batch before, and at the start of this one."""
        self._end_batch()
        if self._watches is None and self._model.optimizer.built:
            self._make_watches()
        if self._watches is None:
            self._first_values = self._read_first()
        for watch in self._watches or ():
            watch.begin_batch()

    # The end of a batch is seen when the next thing begins: a callback with `on_train_batch_end`
    # makes Keras wait for the logs of each batch.

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look at the end of the last batch."""
        self._end_batch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write what the epoch gave."""
        self._end_batch()
        self._drain()
        for sink in self._sinks:
            sink.flush()
        if self.epoch_logs and logs is not None:
            logs.update(self._summarize())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write what is left, and let go of the model's tensors."""
        self._end_batch()
        self._drain()
        for sink in self._sinks:
            sink.close()
        self._sinks = []
        self._reset()
        self._is_training = False

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "every_n_steps": self.every_n_steps,
            "variables": self.variables,
            "quantities": list(self.quantities),
            "filepath": self.filepath,
            "log_dir": self.log_dir,
            "epoch_logs": self.epoch_logs,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdamMomentLogger":
        """Make one from what `get_config` returned."""
        return cls(**config)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what was logged and how, but not the model: a copy is for another one."""
        return _rebuild, (type(self), self.get_config(), self._memory, self._run)

    def _is_scheduled(self, step: int) -> bool:
        if callable(self.every_n_steps):
            return bool(self.every_n_steps(step))
        return step % self.every_n_steps == 0

    def _find_adams(self) -> list[Any]:
        optimizer = getattr(self._model, "optimizer", None)
        if optimizer is None:
            name = getattr(self._model, "name", None)
            raise ValueError(
                f"{OWNER} needs a compiled model. Received: model={name!r}, which has no "
                'optimizer. Call `model.compile("adam", ...)` first.'
            )
        adams = find_adams(optimizer)
        # A MultiOptimizer may choose its optimizers only when it is built.
        chooses = hasattr(optimizer, "optimizers") and not optimizer.built
        if not adams and not chooses:
            raise TypeError(
                f"{OWNER} needs an optimizer that keeps Adam's moments: {SUPPORTED}. "
                f"Received: optimizer={type(optimizer).__name__}."
            )
        return adams

    def _make_watches(self) -> None:
        watched = list_watched(self._find_adams())
        self._check_chosen([name for *_, names in watched for name in names])
        kept, self._kept = self._kept, []
        for adam, moments, names in watched:
            # An optimizer that is compiled again keeps the moments of layers frozen since.
            chosen = [
                i
                for i, name in enumerate(names)
                if self._is_chosen(name) and moments[i].weight.trainable
            ]
            if chosen:
                rows, keys = [moments[i] for i in chosen], tuple(names[i] for i in chosen)
                same = [w for w in kept if w.is_for(self._model, adam, rows)]
                self._kept.append(same[0] if same else self._make_watch(adam, rows, keys))
        self._watches = self._kept
        for watch in self._watches:
            watch.warn_of_rounding()

    def _read_first(self) -> dict[int, Tensor]:
        """Return what is in the variables before the first batch, which makes the optimizer's."""
        variables = [get_counter(adam) for adam in self._find_adams()]
        variables += self._model.trainable_variables if self._model.built else []
        values = compile_reading(copy_all, Reader(self._model, variables), False)()
        return dict(zip(map(id, variables), values, strict=True))

    def _make_watch(self, adam: Any, moments: list[Moments], names: tuple[str, ...]) -> Watch:
        skips = may_skip(self._model.optimizer)
        return Watch(self._model, adam, moments, names, self.quantities, self._is_scheduled, skips)

    def _check_chosen(self, paths: list[str]) -> None:
        if not any(self._is_chosen(path) for path in paths):
            expected = f"chosen so that it matches a trainable variable ({', '.join(paths)})"
            raise ValueError(error_message("variables", OWNER, expected, self.variables))

    def _is_chosen(self, path: str) -> bool:
        if self.variables is None:
            return True
        if callable(self.variables):
            return bool(self.variables(path))
        return re.search(self.variables, path) is not None

    def _end_batch(self) -> None:
        """Have the device compute what is wanted of the last batch, and fetch what it has done."""
        if self._first_values is not None:
            values, self._first_values = self._first_values, None
            if self._model.optimizer.built:
                self._make_watches()
            for watch in self._watches or ():
                watch.begin_first(values)
        self._drain()
        for watch in self._watches or ():
            numbers = watch.end_batch()
            if numbers is not None:
                self._waiting.append((watch, self._epoch, numbers))

    def _drain(self) -> None:
        waiting, self._waiting = self._waiting, []
        for watch, epoch, numbers in waiting:
            step_and_values = watch.derive(numbers)
            if step_and_values is not None:
                step, values = step_and_values
                self._add(Record(self._run, epoch, step, watch.names, watch.sizes, values))

    def _add(self, record: Record) -> None:
        self._memory.add(record)
        for sink in self._sinks:
            sink.add(record)
        self._of_epoch.append(record.values)
        self._warn_of_spikes(record)

    def _warn_of_spikes(self, record: Record) -> None:
        if "rms_ratio" not in self._memory.columns:
            return
        ratios = record.values[:, self._memory.columns.index("rms_ratio")]
        for variable, ratio, size in zip(record.variables, ratios, record.sizes, strict=True):
            if (
                ratio > RMS_RATIO_WARNING
                and size >= FEWEST_ENTRIES
                and variable not in self._warned
            ):
                self._warned.add(variable)
                warnings.warn(
                    f"At step {record.step} the gradient of {variable!r} was {ratio:.1f} times "
                    f"what Adam has got used to (`rms_ratio` above {RMS_RATIO_WARNING}): the loss "
                    "may jump within the next steps. A lower learning rate or `beta_2`, or "
                    "`clipnorm`, prevents it.",
                    stacklevel=2,
                )

    def _summarize(self) -> dict[str, float]:
        """Return what an epoch adds to the logs of Keras."""
        columns = self._memory.columns
        values = np.concatenate([*self._of_epoch, np.empty((0, len(columns)))])
        return {
            f"adam/{name}": float(function(values[:, columns.index(column)]))
            if len(values)
            else float("nan")
            for quantity in self.quantities
            for name, (column, function) in QUANTITIES[quantity].epoch_logs.items()
        }


def _rebuild(
    cls: type[AdamMomentLogger], config: dict[str, Any], memory: Memory, run: int
) -> AdamMomentLogger:
    logger = cls.from_config(config)
    logger._memory, logger._run = memory, run
    return logger
