"""Arguments of `keras.Model.fit`: each from the trial or from the caller, never from both."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from keras_binclf._data.tables import is_dataset
from keras_binclf._validation import check_integer_at_least, check_non_negative, error_message
from keras_binclf.tuner.space.domains import Domain, Fixed
from keras_binclf.tuner.space.hyperparameters import NONE, PARAMETERS
from keras_binclf.tuner.trial.batches import peek
from keras_binclf.tuner.trial.data import Data, find_class_weights

OWNER = "BinaryClassifierHyperModel.fit"
TABLE_BATCH_SIZE = 4096
"""Rows of a table that validation takes at once: its scores do not depend on that."""

PATIENCE_EPOCHS, PATIENCE_STEPS = 10, 100
"""How long to wait for a better epoch: both, since on few rows 10 epochs are only 30 steps."""


def check_batches(x: Any, domains: Mapping[str, Domain]) -> None:
    """Raise where the search would choose a batch size that nothing uses."""
    if is_dataset(x) and not inspect.isgenerator(x) and "batch_size" in domains:
        raise ValueError(
            "The batch size is searched, but a data set has batches of its own. Received: x of "
            f"type {type(x).__name__}. Make the hypermodel with `tune_batch_size=False`, or "
            "give arrays."
        )


def choose_options(
    point: Mapping[str, Any],
    data: Data,
    domains: Mapping[str, Domain],
    has_backbone: bool,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the batch sizes and the epochs for `keras.Model.fit`.

    Args:
        point: values of the trial.
        data: rows of the trial.
        domains: values of each hyperparameter.
        has_backbone: whether the rows may be large, such as images.
        given: `batch_size` and `epochs` as the caller said them, or None.
    """
    for name, value in given.items():
        if value is not None:
            _check_given(name, value, domains)
    options = {"epochs": given["epochs"] or point["epochs"]}
    size = given["batch_size"] or point.get("batch_size", PARAMETERS["batch_size"].domain.default)
    if not data.is_dataset:
        options["batch_size"] = size
    if data.validation is None or not is_dataset(data.validation):
        options["validation_batch_size"] = size if has_backbone else max(size, TABLE_BATCH_SIZE)
    return options


def choose_patience(value: Any, data: Data, options: Mapping[str, Any]) -> int | None:
    """Return the epochs without improvement after which to stop, or None.

    Args:
        value: argument of the caller: epochs, None for never, or `"auto"`.
        data: rows of the trial.
        options: as of `choose_options`.
    """
    if value is None:
        return None
    if value != "auto":
        if isinstance(value, str):
            expected = '"auto", an int of at least 1, or None'
            raise ValueError(error_message("patience", OWNER, expected, value))
        return check_integer_at_least(value, 1, "patience", OWNER)
    if data.y is None:
        return PATIENCE_EPOCHS
    num_steps: int = math.ceil(len(data.y) / options["batch_size"])
    return max(PATIENCE_EPOCHS, math.ceil(PATIENCE_STEPS / num_steps))


def _check_given(name: str, value: Any, domains: Mapping[str, Domain]) -> None:
    """Raise where the search says a value too."""
    check_integer_at_least(value, 1, name, OWNER)
    domain = domains.get(name)
    if domain is None or (name == "epochs" and domain is PARAMETERS[name].domain):
        return
    hint = f'Say it in one place: here, or in `space={{"{name}": {value}}}`.'
    if name == "batch_size":
        hint = f'Fix it there, `space={{"batch_size": {value}}}`, or `tune_batch_size=False`.'
    raise ValueError(
        error_message(name, OWNER, "left out where the hypermodel chooses it", value, hint)
    )


def choose_class_weights(
    point: Mapping[str, Any],
    data: Data,
    domain: Domain,
    given: Any,
    prior: float | None,
) -> tuple[float, float] | None:
    """Return the weights of negatives and positives, or None.

    Args:
        point: values of the trial.
        data: rows of the trial.
        domain: which ways of weighting are searched.
        given: `class_weight` as the caller said it, or None.
        prior: the share of positives, or None.
    """
    if given is None:
        check_weighting(data, domain)
        return find_class_weights(data, prior) if point["class_weight"] == "balanced" else None
    if domain != Fixed(NONE):
        hint = 'Fix it there: `space={"class_weight": None}`.'
        expected = "left out where the hypermodel chooses it"
        raise ValueError(error_message("class_weight", OWNER, expected, given, hint))
    if not isinstance(given, Mapping) or set(given) != {0, 1}:
        expected = "a dict with a weight for 0 and one for 1"
        raise ValueError(error_message("class_weight", OWNER, expected, given))
    negative, positive = (check_non_negative(given[k], f"class_weight[{k}]", OWNER) for k in (0, 1))
    return negative, positive


def check_weighting(data: Data, domain: Domain) -> None:
    """Raise where Keras cannot weight the classes of a data set, which would fail some trials."""
    if not data.is_dataset or domain == Fixed(NONE):
        return
    from_torch = type(data.x).__module__.startswith("torch.")
    if from_torch or peek(data.x)[2] is not None:
        kind = "torch DataLoader" if from_torch else "data set with sample weights"
        raise ValueError(
            f"Class weights are searched, but Keras takes none beside a {kind}. Fix them: "
            '`space={"class_weight": None}`, or give arrays.'
        )
