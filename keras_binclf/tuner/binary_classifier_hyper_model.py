"""The search space of classifiers."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from keras_binclf._layer_state import deserialize_layer, drop_seeds, serialize_layer
from keras_binclf._validation import check_bool, check_open_unit, error_message
from keras_binclf.layers import TabularEncoder
from keras_binclf.metrics import Criterion
from keras_binclf.metrics.base import get_direction
from keras_binclf.models import check_scaler
from keras_binclf.tuner.search import preflight, project
from keras_binclf.tuner.search.errors import explaining_failure, stopping_search
from keras_binclf.tuner.search.running_tuner import (
    call_at_end,
    check_overrides,
    compile_for,
    find_finished,
    find_objective,
    find_tuner,
)
from keras_binclf.tuner.space.optuna_values import choose_with_optuna
from keras_binclf.tuner.space.points import find_largest, read_point
from keras_binclf.tuner.space.space_argument import from_json, make_domains, to_json
from keras_binclf.tuner.trial import fit_options
from keras_binclf.tuner.trial.data import Given, check_all_batches, check_data
from keras_binclf.tuner.trial.encoding import EncodedRows
from keras_binclf.tuner.trial.fold_training import train_folds
from keras_binclf.tuner.trial.inputs import (
    SearchInputs,
    Shapes,
    deserialize_input_shape,
    read_input_shape,
)
from keras_binclf.tuner.trial.memory import forget_compiled
from keras_binclf.tuner.trial.model import (
    count_weights,
    gives_finite_features,
    make_model,
    serialize_backbone,
)
from keras_binclf.tuner.trial.objective import (
    explain_undefined,
    make_metrics,
    make_score,
    serialize_score,
)
from keras_binclf.tuner.trial.plan import Plan
from keras_binclf.tuner.trial.row_check import RowCheck
from keras_binclf.tuner.trial.training import train

DEFAULT_NAME = "binary_classifier"


class BinaryClassifierHyperModel(keras_tuner.HyperModel):
    """Search space of binary classifiers for every tuner of Keras Tuner.

    Use it to find the hidden layers (`MLPBlock`), the optimizer and the way of training that suit
    a table, or, with `backbone`, to search around a body of your own. With an adapted
    `TabularEncoder` for `input_shape` the search takes tables with words, dates and gaps; they are
    encoded once, and each trial trains a copy of the encoder. The docs page "Tuning" lists
    the hyperparameters with their values; the default point is `binary_classifier` as it is. A
    hyperparameter that a trial does not use has no value there.

    `space` changes any of it. A value fixes a hyperparameter, a list gives choices, a dict with
    any of `min_value`, `max_value`, `step`, `sampling` and `default` gives a range:

        space={"activation": "relu", "units": [32, 64], "learning_rate": {"max_value": 0.1}}

    `hidden_units` gives the widths of all layers instead of `num_layers`, `units` and
    `width_shape`: `space={"hidden_units": (64, 32)}`, or a list of such tuples, of which one is
    chosen (`None` for no hidden layer).

    Each trial trains for at most 100 epochs (`epochs`) with early stopping. Its model carries the
    decision threshold that was best on its validation rows; `keras_binclf.build_best` returns the
    best one, ready to use. A tuner's own `metrics` are logged beside those of the hypermodel; its
    `loss` and `optimizer` replace those of the trials.

    Args:
        input_shape: int, the number of features, or the shape of one example without the batch; or
            an adapted `TabularEncoder`; for several inputs, which a `backbone` joins, a dict of
            these by name, or a list.
        backbone: function `(hp, inputs) -> tensor` of shape `(batch_size, features)`, which
            replaces the hidden layers, for images, text or sequences; `hp` is Keras Tuner's
            `HyperParameters`, and `inputs` a tensor, or a dict or list of tensors where
            `input_shape` is one; in the place of an encoder its features. Or `None`. Defaults to
            `None`.
        scaler: layer that the raw features go through first, such as an adapted
            `keras.layers.Normalization`, or `None`. Each trial has a copy. An encoder scales by
            itself. Defaults to `None`.
        prior: float in (0, 1), the share of positives, or `None`. Defaults to `None`.
        score: the score to optimize: `"auc"`, `"pr_auc"`, `"brier_score"`,
            `"expected_calibration_error"`, a score of `ThresholdMetric` at 0.5 such as `"f1"`, or
            at the best threshold such as `"best_f1"`; a `keras_binclf.metrics.Criterion`, such as
            `Criterion("cost", cost_fp=1, cost_fn=10)`, at the best threshold; or a metric.
            Defaults to `"auc"`.
        space: dict of hyperparameters with values other than the listed ones, or `None`. Defaults
            to `None`.
        tune_batch_size: bool, whether the batch size is searched. `False` for data sets, which
            have batches of their own. Defaults to `True`.
        name: str, the name of the models and of the project, or `None`. Defaults to `None`.
        tunable: bool, whether hyperparameters are added to the search; as in
            `keras_tuner.HyperModel`. Defaults to `True`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an argument of the wrong value: an unknown name in `space`, an empty
            range, a score that needs costs, an encoder that was not adapted.

    Example:

    ```python
    import keras_tuner
    import numpy as np
    from keras_binclf import BinaryClassifierHyperModel, build_best

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0.5).astype("float32")
    hypermodel = BinaryClassifierHyperModel(4, prior=y.mean(), score="best_f1")
    assert hypermodel.objective.direction == "max"

    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=1, directory="search",
        project_name=hypermodel.project_name, overwrite=True,
    )
    tuner.search(x, y, validation_split=0.25, epochs=2, verbose=0)
    build_best(tuner, "best.keras")
    ```

    References:
        Random search beats a grid, since few hyperparameters decide: Bergstra and Bengio, 2012,
        https://jmlr.org/papers/v13/bergstra12a.html. The learning rate first, and on a logarithmic
        scale: Bengio, 2012, https://arxiv.org/abs/1206.5533. Decoupled weight decay: Loshchilov
        and Hutter, 2019, https://arxiv.org/abs/1711.05101. Label smoothing: Szegedy et al., 2015,
        https://arxiv.org/abs/1512.00567.
    """

    def __init__(
        self,
        input_shape: int | Sequence[Any] | Mapping[str, Any] | TabularEncoder,
        *,
        backbone: Callable[[Any, Any], Any] | None = None,
        scaler: keras.Layer | None = None,
        prior: float | None = None,
        score: str | Criterion | keras.metrics.Metric = "auc",
        space: Mapping[str, Any] | None = None,
        tune_batch_size: bool = True,
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        owner = type(self).__name__
        inputs = read_input_shape(input_shape, owner)
        if backbone is not None and not callable(backbone):
            expected = "a function (hp, inputs) -> tensor, or None"
            raise TypeError(error_message("backbone", owner, expected, backbone))
        inputs.check_beside(backbone, scaler, owner)
        if not (space is None or isinstance(space, Mapping)):
            expected = "a dict of hyperparameters, or None"
            raise TypeError(error_message("space", owner, expected, space))
        if not (name is None or isinstance(name, str)):
            raise TypeError(error_message("name", owner, "a string or None", name))
        super().__init__(name=name, tunable=check_bool(tunable, "tunable", owner))
        self.input_shape: Shapes = inputs.shapes
        self._inputs = inputs
        self.backbone = backbone
        self.prior = None if prior is None else check_open_unit(prior, "prior", owner)
        self.score = score
        self.space = dict(space or {})
        self.tune_batch_size = check_bool(tune_batch_size, "tune_batch_size", owner)
        self._scaler = scaler and serialize_layer(
            check_scaler(scaler, inputs.structure.shape[-1], owner)
        )
        self._score = make_score(score, owner)
        self._domains = make_domains(
            self.space, backbone is not None, prior is not None, self.tune_batch_size
        )
        self._encoded: EncodedRows | None = None
        self._attempts: dict[str, int] = {}
        self._num_trials = 0
        self._made_by: dict[str, str] | None = None

    @property
    def scaler(self) -> keras.Layer | None:
        """A copy of the layer that the raw features go through first."""
        return self._scaler and deserialize_layer(self._scaler)

    @property
    def objective(self) -> keras_tuner.Objective:
        """The tuner's `objective`: the score on the validation rows, and its direction."""
        return keras_tuner.Objective(f"val_{self._score.name}", get_direction(self._score))

    @property
    def project_name(self) -> str:
        """Name of the search's folder, with a hash of the space and of the package's version.

        A tuner with this `project_name` resumes a search that was stopped, and never mixes its
        trials with those of another space.
        """
        name = self.name or DEFAULT_NAME
        return f"{name}-{self._fingerprint()['fingerprint'][:10]}"

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Register all hyperparameters, those of `fit` too, before the first trial."""
        preflight.check_tensorboard()
        self._read(hp)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Return the compiled model of one trial.

        Args:
            hp: the values of the trial; defaults are added for those that it lacks.

        Returns:
            A compiled functional `keras.Model`.

        Raises:
            TypeError: if the backbone returns no tensor.
            ValueError: if it returns a tensor of another shape than `(batch_size, features)`.
        """
        point = self._read(hp)
        return make_model(
            point,
            hp,
            self.backbone,
            make_metrics(self._score),
            inputs=self._inputs,
            scaler=self.scaler,
            prior=self.prior if point.get("prior_bias") else None,
            name=self.name or DEFAULT_NAME,
        )

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        x: Any = None,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
        folds: Any = None,
        class_weight: Mapping[int, float] | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        patience: int | str | None = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: Any = 0,
        **kwargs: Any,
    ) -> Any:
        """Train the model of one trial; `tuner.search` takes the same arguments.

        Training stops when the objective has not improved for `patience` epochs, and the model
        keeps the weights and the threshold of its best epoch. An error in the data or the tuner
        stops the whole search, since every trial would meet it. On JAX every fifth training calls
        `jax.clear_caches()`, so that a long search needs no more memory than a short one.

        Args:
            hp: the values of the trial.
            model: the model that `build` returned.
            x: array of features of shape `(n, *input_shape)`, or a dict or list of them where
                `input_shape` is one; in the place of an encoder the table, as for
                `TabularEncoder.encode`; or, without `y`, a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a torch `DataLoader`. One that gives tables is read
                into memory before the first trial, encoded. NaN and infinity are errors, unless
                the scaler or the backbone maps them to numbers; in a table NaN is a gap.
                Defaults to `None`, which is refused.
            y: labels 0 and 1 of shape `(n,)` or `(n, 1)`. Defaults to `None`.
            sample_weight: weights of shape `(n,)` or `(n, 1)`, or `None`. Defaults to `None`.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set. Defaults to `None`.
            validation_split: float in (0, 1), the share of rows at the end that validate, as in
                `keras.Model.fit`. Defaults to `0.0`.
            folds: int, the number of stratified folds, or a list of pairs of row numbers, to train
                on and to validate on. For small tables: one model for each fold is trained; the
                objective and the threshold are those of all held-out predictions together; and
                the trial's model is trained on all rows, for the median of the folds' best
                epochs. The model of a fold has an encoder of its own, which is adapted to its
                training rows with the known kinds of the columns. Defaults to `None`.
            class_weight: dict of a weight for 0 and one for 1, where `space` fixes
                `class_weight` to `None`. Defaults to `None`.
            batch_size: int, where it is not searched; 128 if it is `None`. Defaults to `None`.
            epochs: int, the largest number of epochs, where `space` does not say it; `Hyperband`
                gives it. Defaults to `None`.
            patience: int, epochs without improvement after which to stop; `None` for never;
                `"auto"` for 10, or as many as 100 steps take on small tables. A
                `keras.callbacks.EarlyStopping` in `callbacks` replaces it. Defaults to `"auto"`.
            callbacks: list of callbacks. Defaults to `None`.
            verbose: as in `keras.Model.fit`. Defaults to `0`.
            **kwargs: further arguments of `keras.Model.fit`.

        Returns:
            The `keras.callbacks.History`, with `fit_seconds` in it; with `folds` a dict of the
            scores of the held-out predictions.

        Raises:
            TypeError: for data of the wrong kind.
            ValueError: for labels other than 0 and 1, NaN or infinity, missing validation rows,
                and arguments that contradict the hypermodel.
        """
        callbacks = list(callbacks or [])
        tuner = find_tuner(callbacks)
        rows = Given(x, y, sample_weight, validation_data, validation_split, folds)
        with self._forgetting_on_error(), stopping_search():
            point = self._read(hp)
            fit_options.check_batches(x, self._domains)
            encoded = self._encode(rows, tuner)
            data = check_data(encoded.given, self._make_check(model))
            folds = None if data.folds is None else encoded.divide(data)
            options = fit_options.choose_options(
                point,
                data,
                self._domains,
                self.backbone is not None,
                {"batch_size": batch_size, "epochs": epochs},
            )
            if tuner is not None:
                place = str(tuner.project_dir)
                project.claim_project(place, self._fingerprint(), self.project_name)
            objective = find_objective(tuner, self.objective, make_metrics(self._score))
            plan = Plan(
                monitor=objective.name,
                direction=objective.direction,
                patience=fit_options.choose_patience(patience, data, options),
                class_weights=fit_options.choose_class_weights(
                    point, data, self._domains["class_weight"], class_weight, self.prior
                ),
                callbacks=callbacks,
                options={**options, "verbose": verbose, **kwargs},
                why_undefined=explain_undefined(self._score, objective.name),
                check_all_batches=lambda: check_all_batches(data, self._make_check(model)),
            )
            check_overrides(tuner, hp)
            compile_for(tuner, model, make_metrics(self._score))
        finished = find_finished(callbacks)
        if finished is not None:
            return finished
        try:
            with self._forgetting_on_error(), explaining_failure(callbacks, self._attempts):
                if folds is None:
                    return train(model, data, plan)
                metrics = make_metrics(self._score)
                build = functools.partial(self._build_for, tuner, hp)
                return train_folds(model, data, plan, folds, build, metrics)
        finally:
            self._num_trials += 1
            forget_compiled(self._num_trials)

    def preflight(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
        folds: Any = None,
        tuner: keras_tuner.Tuner | None = None,
        directory: str | None = None,
    ) -> preflight.Preflight:
        """Check, before the first trial, whether a search over these data can work.

        Checks the rows; builds the default and the largest model and runs a step of each; checks
        that the objective will be in the logs, that tensorboard is installed, and that the
        search's folder can be written and holds no trials of another space. A data set is read
        once, to its end, or for 1,000 batches where its length is not known.

        Args:
            x: as in `fit`.
            y: as in `fit`. Defaults to `None`.
            sample_weight: as in `fit`. Defaults to `None`.
            validation_data: as in `fit`. Defaults to `None`.
            validation_split: as in `fit`. Defaults to `0.0`.
            folds: as in `fit`. Defaults to `None`.
            tuner: the tuner that will search, whose objective and folder are checked, or `None`.
                Defaults to `None`.
            directory: str, the `directory` that the tuner will get beside
                `project_name=hypermodel.project_name`, where it is not made yet; a tuner that is
                made loads the trials that it finds. Defaults to `None`.

        Returns:
            A `Preflight`; `print` shows it as one line.

        Raises:
            ImportError: if tensorboard is missing.
            TypeError: for data of the wrong kind.
            ValueError: for any other mistake; the message says what to do.
        """
        preflight.check_tensorboard()
        place = preflight.find_project_dir(tuner, directory, self.project_name)
        rows = Given(x, y, sample_weight, validation_data, validation_split, folds)
        fit_options.check_batches(x, self._domains)
        encoded = EncodedRows(rows, self._inputs)
        data = check_data(encoded.given, self._make_check())
        encoded.divide(data)  # Of tables; fails where an encoder cannot learn from a fold.
        fit_options.check_weighting(data, self._domains["class_weight"])
        check_all_batches(data, self._make_check())
        objective = find_objective(tuner, self.objective, make_metrics(self._score))
        hp = keras_tuner.HyperParameters()
        default = self._build_for(tuner, hp.copy())
        hp.values = find_largest(self._domains)
        largest = self._build_for(tuner, hp)
        check_overrides(tuner, hp)
        logs = preflight.try_models(default, largest, data, objective.name)
        size = count_weights(largest)
        preflight.check_place(place, size, self._fingerprint(), self.project_name)
        return preflight.Preflight(count_weights(default), size, logs, place)

    def suggest(self, trial: Any) -> keras_tuner.HyperParameters:
        """Return hyperparameters that an Optuna trial chose, for `build` and `fit`.

        Args:
            trial: `optuna.Trial`, or whatever has `suggest_categorical`, `suggest_float` and
                `suggest_int`.

        Returns:
            A `keras_tuner.HyperParameters` with the values of this trial, active ones alone.

        Example:

        ```python
        import optuna
        import numpy as np
        from keras_binclf import BinaryClassifierHyperModel

        hypermodel = BinaryClassifierHyperModel(4)
        x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
        y = (x[:, 0] > 0).astype("float32")

        def run(trial):
            hp = hypermodel.suggest(trial)
            model = hypermodel.build(hp)
            history = hypermodel.fit(hp, model, x, y, validation_split=0.5, epochs=1)
            return max(history.history["val_auc"])

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize")
        study.optimize(run, n_trials=1)
        ```
        """
        # A backbone may register more hyperparameters once some are chosen.
        return choose_with_optuna(trial, self._read if self.backbone is None else self.build)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON.

        Raises:
            ValueError: if the backbone is a lambda, which cannot be found again.
        """
        return {
            "input_shape": self._inputs.to_json(),
            "backbone": serialize_backbone(self.backbone, type(self).__name__),
            "scaler": self._scaler,
            "prior": self.prior,
            "score": serialize_score(self.score),
            "space": to_json(self.space),
            "tune_batch_size": self.tune_batch_size,
            "name": self.name,
            "tunable": self.tunable,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "BinaryClassifierHyperModel":
        """Make one from the result of `get_config`.

        Args:
            config: the arguments; a backbone must be registered with
                `keras.saving.register_keras_serializable`.
        """
        read = keras.saving.deserialize_keras_object
        given = dict(config)
        given["input_shape"] = deserialize_input_shape(given["input_shape"])
        given["scaler"] = given["scaler"] and deserialize_layer(given["scaler"])
        given["backbone"] = given["backbone"] and read(given["backbone"])
        given["score"] = read(given["score"])
        given["space"] = from_json(given["space"])
        return cls(**given)

    def _read(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        return read_point(hp if self.tunable else hp.copy(), self._domains)

    def _fingerprint(self) -> dict[str, str]:
        """Return the fingerprint of the search, which is the same for the same trials."""
        if self._made_by is None:
            hp = keras_tuner.HyperParameters()
            if self.backbone is None:
                read_point(hp, self._domains)
            else:
                self.build(hp)
            parts = {
                "input_shape": self._inputs.identify(),
                "backbone": getattr(self.backbone, "__qualname__", None),
                "scaler": self._scaler and drop_seeds(self._scaler),
                "prior": self.prior,
                "score": serialize_score(self._score),
                "space": hp.get_config()["space"],
                "fixed": {name: repr(domain) for name, domain in self._domains.items()},
            }
            self._made_by = project.make_fingerprint(parts)
        return self._made_by

    def _accepts(self, rows: Any, model: keras.Model | None = None) -> bool:
        """Whether the scaler or backbone maps NaN and infinity in these rows to numbers."""
        if self.backbone is not None and model is None:
            model = self.build(keras_tuner.HyperParameters())
        with_backbone = None if self.backbone is None else model
        return gives_finite_features(rows, self.scaler, with_backbone)

    def _make_check(self, model: keras.Model | None = None) -> RowCheck:
        """Return the check of rows; a backbone is tried in `model`, or in a new default model."""
        return RowCheck(self._inputs, lambda rows: self._accepts(rows, model))

    def _encode(self, rows: Given, tuner: Any) -> EncodedRows:
        """Return the encoded rows: until the search of a tuner ends, those of its first trial."""
        kept = self._encoded
        if kept is not None and kept.is_of(rows):
            return kept
        encoded = EncodedRows(rows, self._inputs)
        if tuner is not None and self._inputs.has_encoders:
            self._encoded = encoded
            call_at_end(tuner, self._forget_rows)
        return encoded

    def _forget_rows(self) -> None:
        self._encoded = None

    @contextlib.contextmanager
    def _forgetting_on_error(self) -> Iterator[None]:
        """Forget the encoded rows with an error, which may end the search."""
        try:
            yield
        except BaseException:
            self._forget_rows()
            raise

    def _build_for(
        self, tuner: Any, hp: keras_tuner.HyperParameters, inputs: SearchInputs | None = None
    ) -> keras.Model:
        """Return the model of one trial, compiled as its tuner asks.

        Args:
            tuner: the tuner, or None.
            hp: the values of the trial.
            inputs: those of a fold, or None for those of the search.
        """
        own = self._inputs
        self._inputs = own if inputs is None else inputs
        try:
            model = self.build(hp)
        finally:
            self._inputs = own
        compile_for(tuner, model, make_metrics(self._score))
        return model
