"""Callback that logs Adam's gradient, moments, bias correction and update of each variable."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import check_bool, check_integer_at_least
from keras_binclf.callbacks.adam_moments._arguments import (
    OWNER,
    check_filepath,
    check_optimizer,
    check_path,
    check_quantities,
    check_variables,
)
from keras_binclf.callbacks.adam_moments._memory import Memory
from keras_binclf.callbacks.adam_moments._quantities import DEFAULT, list_columns
from keras_binclf.callbacks.adam_moments._sinks import Sink, open_sinks
from keras_binclf.callbacks.adam_moments._watches import Watches
from keras_binclf.callbacks.adam_moments.epoch_rows import SpikeWarning, summarize


class AdamMomentLogger(keras.callbacks.Callback):
    """Callback that logs Adam's gradient, moments, bias correction and update of each variable.

    Use it to see why a training stalls, diverges or spikes. Adam keeps two running means of each
    gradient `g`, corrects them for their start at 0, and steps by their ratio:

        m_t = β₁ m_{t−1} + (1 − β₁) g_t          m̂_t = m_t / (1 − β₁ᵗ)
        v_t = β₂ v_{t−1} + (1 − β₂) g_t²         v̂_t = v_t / (1 − β₂ᵗ)
        w_t = w_{t−1} − lr · m̂_t / (√v̂_t + ε)

    (Keras adds `ε` to the uncorrected `√v_t`.) Training is the same to the last bit with the logger
    and without it: it computes from the optimizer's variables, before and after a step, in a
    function of its own. It logs Adam, AdamW, Nadam, Adamax and Lamb, also inside a
    `LossScaleOptimizer` or `MultiOptimizer`, and the variables that Muon trains by Adam; those
    whose steps Muon orthogonalises have no second moment and are left out.

    The gradient is the one that the optimizer applied (clipped, unscaled, accumulated), from
    `g_t = (m_t − β₁ m_{t−1}) / (1 − β₁)`. In float32 it is exact to about 1e-6 of
    `|m_t| + |m_{t−1}|` at β₁ = 0.9, and to about 6e-8 / (1 − β₁) of it elsewhere. (A variable that
    Keras leaves out of a step for want of a gradient keeps its moments, and is logged as if `m` had
    been its gradient.) Where one call makes several steps (`steps_per_execution`, or a `train_step`
    of your own), each call that completes a scheduled step is one row, at its last step: the
    gradient is the mean of its gradients with the weights that the first moment gives them,
    `rms_ratio` and Nadam's `m_hat` are those of this mean, and the update is that of all its steps.

    Quantities, and their columns:

    - `gradient`: `g_t`. Four columns: `gradient_norm`, `gradient_mean`, `gradient_rms` (root mean
      square) and `gradient_max` (largest absolute value).
    - `m`, `v`: the first and second moment, four columns each. Of Adamax, `v` is the square of its
      norm `u`.
    - `m_hat`, `v_hat`: the bias-corrected ones, four columns each. The step divides by the root of
      `v_hat`; with AMSGrad it is the largest so far, with Adamax it is `v`.
    - `update`: `w_t − w_{t−1}`, with weight decay, constraints, and the jumps of
      `ema_overwrite_frequency`. Four columns. NaN at the first step of a model that this step
      builds.
    - `update_ratio`: norm of the update divided by the norm of the weights after it.
    - `rms_ratio`: `sqrt(mean(g² / max(v̂, ε²)))`, the gradient relative to its running root mean
      square. It rises before loss spikes (Wortsman et al., 2023).
    - `epsilon_share`: share of the entries with `√v̂ < ε`, whose gradient is practically 0.
    - On request: `weight`, four columns of `w_t`; `gradient_histogram`, `m_histogram`,
      `v_histogram` and `update_histogram`, the number of entries by absolute value in 32 bins of
      two octaves (`…_histogram_00` to `…_31`; the inner edges go from 2^-45 to 2^15).

    The logger warns, once for each variable and training, when `rms_ratio` of a variable of 100
    entries or more exceeds 2.3 (the level of Wortsman et al., section 3), when the variables are of
    a dtype in which `beta_2` is 1, and when a file cannot be written: a full disk ends no training.

    Put the logger first in the list of callbacks: those after it see `adam/…` in the logs, and have
    not changed the weights at the end of an epoch. A batch ends for the logger when the next one
    begins, so changes to the weights in `on_train_batch_end` count as part of the update.
    `train_on_batch` calls no callbacks; in a loop of your own, call those of
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
            each epoch, or `None`. In `.jsonl`, NaN is `null` and infinity a string. `run` continues
            the count of an existing file. Defaults to `None`.
        log_dir: str or path of a directory for TensorBoard (scalars only), or `None`. Defaults to
            `None`.
        epoch_logs: bool, whether means over the logged steps and variables of an epoch go into
            Keras's logs: `adam/gradient_norm`, `adam/update_ratio`, `adam/rms_ratio`,
            `adam/epsilon_share`, and the largest `adam/rms_ratio_max`. NaN in an epoch without a
            logged step, or with a row that is NaN. Defaults to `True`.
        optimizer: the optimizer to log, where a model's own `train_step` uses several: the name of
            the model's attribute (`"d_optimizer"`), or the object; `None` for `model.optimizer`.
            All variables that it was built with are logged. A logger with an object has no config
            and cannot be copied. Defaults to `None`.

    Attributes:
        DEFAULT: tuple of str, the default quantities; `(*AdamMomentLogger.DEFAULT, "weight")` adds
            one.
        history: dict from the path of a variable to a dict of arrays: `run` (the training, from 1),
            `epoch`, `step`, and the columns. Kept over several trainings. The second variable of
            one path has `#2` after it.

    Raises:
        TypeError: for an argument of the wrong kind; in training, if the optimizer keeps no moments
            of Adam.
        ValueError: for an argument of the wrong value; in training, if `variables` matches none, if
            no variable is trained by Adam, if the model is not compiled or has no such `optimizer`,
            if `filepath` holds other columns, or if the logger is in use by another model.
        OSError: before the first step, if `filepath` or `log_dir` cannot be written.

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

    References:
        - Adam: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1; Keras's place of
          `ε` is the "epsilon hat" before its section 2.1.
        - `rms_ratio` and its level: Wortsman et al., 2023, https://arxiv.org/abs/2304.13013.
        - Muon: Jordan, 2024, https://kellerjordan.github.io/posts/muon/.
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
        optimizer: str | keras.optimizers.Optimizer | None = None,
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
        self.optimizer = check_optimizer(optimizer)
        self._memory = Memory(list_columns(self.quantities))
        self._watches = Watches(self.optimizer, self.variables, self.quantities, self._is_scheduled)
        self._run = 0
        self._is_training = False
        self._sinks: list[Sink] = []
        self._reset()

    def _reset(self) -> None:
        for sink in self._sinks:
            sink.abandon()
        self._sinks = []
        self._watches.reset()
        self._epoch = 0
        self._of_epoch: list[np.ndarray] = []
        self._spikes = SpikeWarning(self._memory.columns)

    @property
    def history(self) -> dict[str, dict[str, np.ndarray]]:
        """Logged columns as arrays, by the path of the variable."""
        return self._memory.to_arrays()

    def to_dataframe(self) -> Any:
        """Return all rows as a `pandas.DataFrame`, in the order of logging.

        Returns:
            DataFrame with a row for each step and variable: `run`, `epoch`, `step`, `variable`, and
            the columns of the quantities.

        Raises:
            ImportError: if pandas is not installed.
        """
        return self._memory.to_dataframe()

    def set_model(self, model: Any) -> None:
        """Set the model, unless another one is being trained."""
        if self._is_training and model is not self._model:
            raise ValueError(
                f"{OWNER} watches one model at a time. Received: model={model.name!r}, while it is "
                f"in use by {self._model.name!r}. Make a logger for each model, also after a "
                "training that ended with an error."
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check the optimizer and the files, so that errors come before the first step."""
        self._reset()
        self._watches.begin_training(self._model)
        self._sinks = open_sinks(self.filepath, self.log_dir, self._memory.columns, self.quantities)
        self._run += 1
        self._is_training = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the rows of an epoch."""
        self._end_batch()
        self._log_rows()
        self._epoch, self._of_epoch = epoch, []
        self._watches.begin_epoch()

    # The end of a batch is seen when the next thing begins: a callback with `on_train_batch_end`
    # makes Keras wait for the logs of each batch.

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Observe the end of the batch before, and the start of this one."""
        self._end_batch()
        self._watches.begin_batch()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Observe the end of the last batch."""
        self._end_batch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the rows of the epoch, and add their means to the logs."""
        self._end_batch()
        self._log_rows()
        for sink in self._sinks:
            sink.flush()
        if self.epoch_logs and logs is not None:
            logs.update(summarize(self._of_epoch, self._memory.columns, self.quantities))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write the remaining rows, and let go of the model's tensors."""
        self._end_batch()
        self._log_rows()
        for sink in self._sinks:
            sink.close()
        self._sinks = []
        self._reset()
        self._is_training = False

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments.

        Raises:
            ValueError: if `optimizer` is an object, since a copy would not be the one that trains.
        """
        if not (self.optimizer is None or isinstance(self.optimizer, str)):
            raise ValueError(
                f"`optimizer` of {OWNER} must be a name or None for a config or a copy of the "
                f"logger. Received: optimizer={type(self.optimizer).__name__}. Give the name of "
                'the model\'s attribute that holds it, as in `optimizer="d_optimizer"`.'
            )
        return {
            "every_n_steps": self.every_n_steps,
            "variables": self.variables,
            "quantities": list(self.quantities),
            "filepath": self.filepath,
            "log_dir": self.log_dir,
            "epoch_logs": self.epoch_logs,
            "optimizer": self.optimizer,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdamMomentLogger":
        """Make a logger from the result of `get_config`."""
        return cls(**config)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the arguments and the history, but not the model."""
        return _rebuild, (type(self), self.get_config(), self._memory, self._run)

    def _is_scheduled(self, step: int) -> bool:
        if callable(self.every_n_steps):
            return bool(self.every_n_steps(step))
        return step % self.every_n_steps == 0

    def _end_batch(self) -> None:
        """Log the rows of earlier batches, and start the computation of those of the last one."""
        self._log_rows()
        self._watches.end_batch(self._epoch)

    def _log_rows(self) -> None:
        for record in self._watches.drain(self._run):
            self._memory.add(record)
            for sink in self._sinks:
                sink.add(record)
            self._of_epoch.append(record.values)
            self._spikes.check(record)


def _rebuild(
    cls: type[AdamMomentLogger], config: dict[str, Any], memory: Memory, run: int
) -> AdamMomentLogger:
    logger = cls.from_config(config)
    logger._memory, logger._run = memory, run
    return logger
