"""Callback that sets the threshold of a head to the best one of each validation."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_binclf._data.heads import choose_head
from keras_binclf._validation import error_message
from keras_binclf.metrics import BestThreshold

VALIDATION = "val_"


class ThresholdTuner(keras.callbacks.Callback):
    """Callback that sets the head's threshold to the best one on the validation data of each epoch.

    Use it where the epoch is chosen by a score at the best threshold, so that each epoch is saved
    with its own threshold. The metric `BestThreshold` finds the threshold while Keras validates, so
    there is no second pass. The threshold is a weight of the head: a checkpoint has the threshold
    of its epoch, and `EarlyStopping(restore_best_weights=True)` and the best model of Keras Tuner
    restore that of the best epoch. The threshold is set when validation ends, before any callback
    sees the end of the epoch, so the order of the callbacks does not matter. (It does for a
    `monitor` of training: put this callback first.)

    Where validation finds no best threshold (NaN: the loss is NaN, there is one class only, or no
    threshold satisfies the constraints), the head keeps its threshold, with a warning. After
    training, `keras_binclf.tune_threshold` computes the exact threshold.

    Args:
        monitor: str, the name of a `BestThreshold` in the logs; with `"val_"` before it, of
            validation. Defaults to `"val_best_threshold"`.
        head: str, name or path of the head where the model has several, or `None`. Defaults to
            `None`.

    Raises:
        TypeError: for an argument that is no string.
        ValueError: in training, if the model has no such head, or if its logs have no
            `BestThreshold` under that name.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_binclf import BestThreshold, ThresholdMetric, ThresholdTuner
    from keras_binclf import binary_classifier, find_head

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)).astype("float32")
    y = rng.random(600) < 1 / (1 + np.exp(3 - 2 * x[:, 0]))
    best_f1 = ThresholdMetric("f1", "best")
    model = binary_classifier(4, learning_rate=0.01, metrics=[best_f1, BestThreshold("f1")])

    stopping = keras.callbacks.EarlyStopping("val_best_f1", patience=2, restore_best_weights=True)
    log = model.fit(x, y, validation_split=0.5, epochs=5, verbose=0,
                    callbacks=[stopping, ThresholdTuner()]).history
    best_epoch = np.argmax(log["val_best_f1"])
    assert np.isclose(find_head(model).threshold, log["val_best_threshold"][best_epoch])
    ```
    """

    def __init__(self, monitor: str = "val_best_threshold", *, head: str | None = None) -> None:
        owner = type(self).__name__
        if not isinstance(monitor, str):
            raise TypeError(error_message("monitor", owner, "a string", monitor))
        if not (head is None or isinstance(head, str)):
            hint = "Training may use a copy of the model, in which the head has the same name."
            expected = "the name or path of a head, or None"
            raise TypeError(error_message("head", owner, expected, head, hint))
        super().__init__()
        self.monitor = monitor
        self.head = head
        self._in_epoch = False
        self._seen = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the head, so that a model without one fails before the first step."""
        self._in_epoch, self._seen = False, False
        choose_head(self.model, self.head, type(self).__name__)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Mark the begin of an epoch, in which `on_test_end` ends its validation."""
        self._in_epoch = True

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Set the threshold, if a metric of validation is monitored."""
        if self._in_epoch and self.monitor.startswith(VALIDATION):
            self._set_threshold(self.monitor.removeprefix(VALIDATION), logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the threshold, if a metric of training is monitored."""
        self._in_epoch = False
        if not self.monitor.startswith(VALIDATION):
            self._set_threshold(self.monitor, logs or {})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warn if the logs never had the monitored metric."""
        self._in_epoch = False
        if not self._seen:
            warnings.warn(
                f"ThresholdTuner did not set the threshold: the logs had no `{self.monitor}`. Give "
                "`fit` validation data, or monitor the metric without `val_`.",
                stacklevel=2,
            )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"monitor": self.monitor, "head": self.head}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ThresholdTuner":
        """Make a callback from the result of `get_config`."""
        return cls(**config)

    def _set_threshold(self, name: str, logs: dict[str, Any]) -> None:
        self._check_monitored(name, logs)
        self._seen = True
        threshold = float(logs[name])
        if math.isnan(threshold):
            warnings.warn(
                f"ThresholdTuner did not set the threshold: `{self.monitor}` is NaN. "
                f"{_explain_nan(logs)}",
                stacklevel=2,
            )
            return
        choose_head(self.model, self.head, type(self).__name__).threshold = threshold

    def _check_monitored(self, name: str, logs: dict[str, Any]) -> None:
        hint = f"Compile the model with `metrics=[BestThreshold(name={name!r})]`."
        if name not in logs:
            known = ", ".join(sorted(logs))
            expected = f"a metric of the model ({known})"
            raise ValueError(
                error_message("monitor", type(self).__name__, expected, self.monitor, hint)
            )
        # In a model with several outputs, Keras puts the name of the output before the metric's.
        named = [m for m in self._iterate_metrics() if f"_{name}".endswith(f"_{m.name}")]
        if named and not any(isinstance(metric, BestThreshold) for metric in named):
            expected = "the name of a BestThreshold"
            hint = f"`{name}` is a {type(named[0]).__name__}. {hint}"
            raise ValueError(
                error_message("monitor", type(self).__name__, expected, self.monitor, hint)
            )

    def _iterate_metrics(self) -> Iterator[Any]:
        """Yield the metrics of the model one by one; Keras lists the compiled ones in groups."""
        for metric in self.model.metrics:
            yield from getattr(metric, "metrics", None) or [metric]


def _explain_nan(logs: dict[str, Any]) -> str:
    """Return the hint to the cause of a threshold that is NaN."""
    if math.isnan(float(logs.get("loss", 0.0))):
        return (
            "The loss is NaN, too: look for NaN in the weights, as after too large a learning "
            "rate, and in the data."
        )
    return "Look for validation data of one class, or for constraints that cannot be satisfied."
