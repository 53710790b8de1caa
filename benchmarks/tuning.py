"""What a search finds and costs, beside one written by hand and beside logistic regression.

    python benchmarks/tuning.py --data DIR                        # all parts, about an hour
    python benchmarks/tuning.py --data DIR --parts default --sets adult phoneme
    KERAS_BACKEND=jax python benchmarks/tuning.py --data DIR --parts overhead

DIR holds tables as `NAME.parquet`, with a column `target` of 0 and 1. README.md beside this file
says what is measured and how to read the tables.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from keras_binclf import BinaryClassifierHyperModel, find_head, results_dataframe

PARTS = ("search", "default", "overhead", "memory")
SETS = {
    "search": ["adult"],
    "default": [
        "telco_churn",
        "german_credit",
        "spambase",
        "bank_marketing",
        "credit_default_taiwan",
        "adult",
        "phoneme",
        "breast_cancer_wdbc",
        "pima_diabetes",
        "electricity",
    ],
    "overhead": ["breast_cancer_wdbc"],
    "memory": ["breast_cancer_wdbc"],
}
SPLITS, SPLITS_OF_NOISY, NOISY_TABLE = 3, 12, 10_000
"""How many splits `default` averages; more under so many rows, where one says little."""
SMALL_TABLE, SPLITS_IN_FOLDS = 2000, 3
"""Rows under which `folds` is worth its time, and for how many of the splits."""
FOLDS = 5
AT_LEAST = -0.002
EPOCHS, PATIENCE = 100, 10
"""Those of `BinaryClassifierHyperModel.fit` on large tables, for the hand-written search too."""
FEW_EPOCHS = 5
"""For `overhead` and `memory`, where nobody asks how good the models are."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table divided into rows to train on, to validate on, and to compare all models on.

    Each is a pair of features and labels. `mean` and `variance` are those of the training rows.
    """

    train: tuple
    validation: tuple
    test: tuple
    mean: np.ndarray
    variance: np.ndarray

    def standardize(self, x):
        return (x - self.mean) / np.sqrt(self.variance)

    def merge(self):
        """Let the validation rows be rows to train on."""
        pairs = zip(self.train, self.validation, strict=True)
        x, y = (np.concatenate(pair) for pair in pairs)
        return dataclasses.replace(self, train=(x, y), validation=None)


def read_table(folder, name):
    """Give the features with strings for what has no order, and the labels."""
    frame = pd.read_parquet(Path(folder, f"{name}.parquet"))
    y = frame.pop("target").to_numpy("float32")
    manifest = Path(folder, "manifest.json")
    if manifest.exists():
        nominal = json.loads(manifest.read_text())[name]["nominal_int"]
        frame = frame.astype(dict.fromkeys(nominal, str))
    return frame, y


def make_encoder():
    words = SimpleImputer(strategy="constant", fill_value="missing")
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    return ColumnTransformer(
        [
            ("number", median, make_column_selector(dtype_include="number")),
            ("word", make_pipeline(words, one_hot), make_column_selector(dtype_exclude="number")),
        ],
        sparse_threshold=0,
    )


def load(folder, name, seed, standardize="numbers"):
    """Divide a table 60 : 20 : 20 within each class, and encode it as its training rows say."""
    frame, y = read_table(folder, name)
    rest, test, y_rest, y_test = train_test_split(
        frame, y, test_size=0.2, stratify=y, random_state=seed
    )
    train, validation, y_train, y_validation = train_test_split(
        rest, y_rest, test_size=0.25, stratify=y_rest, random_state=seed
    )
    encoder = make_encoder().fit(train)
    parts = [encoder.transform(part).astype("float32") for part in (train, validation, test)]
    mean, variance = parts[0].mean(axis=0), parts[0].var(axis=0)
    constant = variance == 0
    if standardize == "numbers":
        # Rare words would become large numbers.
        constant[encoder.output_indices_["word"]] = True
    mean, variance = np.where(constant, 0, mean), np.where(constant, 1, variance)
    labels = (y_train, y_validation, y_test)
    return Rows(*zip(parts, labels, strict=True), mean, variance)


def score(model, pair):
    return roc_auc_score(pair[1], model.predict(pair[0], batch_size=4096, verbose=0)[:, 0])


def score_logistic(rows, parts=("test",)):
    """Give the area of scikit-learn's logistic regression on some parts of the rows."""
    model = LogisticRegression(max_iter=5000)
    model.fit(rows.standardize(rows.train[0]), rows.train[1])
    pairs = [getattr(rows, part) for part in parts]
    found = [(y, model.predict_proba(rows.standardize(x))[:, 1]) for x, y in pairs]
    return [roc_auc_score(y, p) for y, p in found]


def make_hypermodel(rows):
    scaler = keras.layers.Normalization(mean=rows.mean, variance=rows.variance)
    shape, prior = rows.train[0].shape[1], float(rows.train[1].mean())
    return BinaryClassifierHyperModel(shape, scaler=scaler, prior=prior)


def train_default(rows, seed, kernel=None, **options):
    """Give the classifier that nobody tuned, trained as a trial is.

    `kernel` is an initializer for the head, in place of zeros.
    """
    keras.utils.set_random_seed(seed)
    hypermodel, hp = make_hypermodel(rows), keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    if kernel:
        head = find_head(model)
        head.kernel.assign(keras.initializers.get(kernel)(head.kernel.shape))
    if rows.validation is not None:
        options["validation_data"] = rows.validation
    hypermodel.fit(hp, model, *rows.train, epochs=EPOCHS, **options)
    return model


class Handwritten(keras_tuner.HyperModel):
    """The search as tutorials write it."""

    def build(self, hp):
        model = keras.Sequential()
        for i in range(hp.Int("num_layers", 1, 4)):
            units = hp.Int(f"units_{i}", min_value=32, max_value=512, step=32)
            activation = hp.Choice("activation", ["relu", "tanh"])
            model.add(keras.layers.Dense(units, activation))
        if hp.Boolean("dropout"):
            model.add(keras.layers.Dropout(0.25))
        model.add(keras.layers.Dense(1, "sigmoid"))
        learning_rate = hp.Choice("learning_rate", [1e-2, 1e-3, 1e-4])
        model.compile(
            optimizer=keras.optimizers.Adam(learning_rate),
            loss="binary_crossentropy",
            metrics=["accuracy", keras.metrics.AUC(name="auc")],
        )
        return model

    def fit(self, hp, model, *args, **kwargs):
        start = time.perf_counter()
        history = model.fit(*args, **kwargs)
        seconds = time.perf_counter() - start
        history.history["fit_seconds"] = [seconds] * len(history.epoch)
        return history


class Deadline(keras.callbacks.Callback):
    """Stop training when time is up."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def on_epoch_end(self, epoch, logs=None):
        if time.perf_counter() > self.end:
            self.model.stop_training = True


def read_peak():
    """Give the largest memory that this program had, in MB.

    `resource.getrusage` would not do: in a new process Linux starts it from what the parent had.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


class WatchedSearch(keras_tuner.RandomSearch):
    """Random search that starts no trial when time is up, and notes the memory after each."""

    def __init__(self, *args, seconds=float("inf"), **kwargs):
        super().__init__(*args, **kwargs)
        self.end = time.perf_counter() + seconds
        self.num_completed, self.peaks = 0, []

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self.peaks.append(read_peak())
        if time.perf_counter() > self.end:
            self.oracle.max_trials = len(self.oracle.trials)  # none is left
        elif trial.status == "COMPLETED":
            self.num_completed += 1


@contextlib.contextmanager
def searching(hypermodel, objective, **options):
    with tempfile.TemporaryDirectory() as folder:
        name = getattr(hypermodel, "project_name", "handwritten")
        yield WatchedSearch(hypermodel, objective, directory=folder, project_name=name, **options)


def make_by_hand_arguments(rows, epochs=EPOCHS):
    """Give what the hand-written search trains with: rows that are standardized already."""
    x, y = rows.train
    stop = keras.callbacks.EarlyStopping(
        "val_auc", mode="max", patience=PATIENCE, restore_best_weights=True
    )
    x_validation, y_validation = rows.validation
    return {
        "x": rows.standardize(x),
        "y": y,
        "validation_data": (rows.standardize(x_validation), y_validation),
        "epochs": epochs,
        "callbacks": [stop],
        "verbose": 0,
    }


def make_our_arguments(rows, epochs=EPOCHS):
    x, y = rows.train
    arguments = {"x": x, "y": y, "validation_data": rows.validation, "verbose": 0}
    return arguments | {"epochs": epochs}


def search_ours(rows, seed, trials):
    """Give trials, seconds, and the areas on validation and test rows of the best trial."""
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    hypermodel = make_hypermodel(rows)
    with searching(hypermodel, hypermodel.objective, max_trials=trials, seed=seed) as tuner:
        tuner.search(**make_our_arguments(rows))
        seconds = time.perf_counter() - start
        model = tuner.get_best_models()[0]
    return tuner.num_completed, seconds, score(model, rows.validation), score(model, rows.test)


def search_by_hand(rows, seed, seconds):
    """Give the same of the hand-written search, which gets so many seconds.

    The trial that runs when they are over ends with its epoch, and may be the best one, but is not
    counted.
    """
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    objective = keras_tuner.Objective("val_auc", "max")
    options = {"max_trials": 10_000, "seed": seed, "seconds": seconds}
    with searching(Handwritten(), objective, **options) as tuner:
        arguments = make_by_hand_arguments(rows)
        arguments["callbacks"].append(Deadline(tuner.end))
        tuner.search(**arguments)
        took = time.perf_counter() - start
        model = tuner.get_best_models()[0]
    pairs = [(rows.standardize(x), y) for x, y in (rows.validation, rows.test)]
    return tuner.num_completed, took, *(score(model, pair) for pair in pairs)


def fit_default(rows, seed):
    start = time.perf_counter()
    model = train_default(rows, seed)
    seconds = time.perf_counter() - start
    return 1, seconds, score(model, rows.validation), score(model, rows.test)


def fit_logistic(rows):
    start = time.perf_counter()
    areas = score_logistic(rows, ("validation", "test"))
    return 1, time.perf_counter() - start, *areas


def run_search(options):
    """Compare the best of our search, of the hand-written one, and what needs no search."""
    print_head("set", "model", "trials", "seconds", "validation AUC", "test AUC")
    for name in options.sets or SETS["search"]:
        found = {}
        for seed in range(options.seeds or 1):
            rows = load(options.data, name, seed)
            ours = search_ours(rows, seed, options.trials)
            found.setdefault("our search", []).append(ours)
            by_hand = search_by_hand(rows, seed, seconds=ours[1])
            found.setdefault("hand-written search, same time", []).append(by_hand)
            found.setdefault("our default classifier", []).append(fit_default(rows, seed))
            found.setdefault("LogisticRegression", []).append(fit_logistic(rows))
        for who, runs in found.items():
            medians = [statistics.median(values) for values in zip(*runs, strict=True)]
            trials, seconds, validation, test = medians
            areas = f"{validation:.4f}", f"{test:.4f}"
            print_row(name, who, f"{trials:.0f}", f"{seconds:.0f}", *areas)


def run_default(options):
    """Compare the default classifier with logistic regression on several splits of each table."""
    head = ["set", "rows", "splits", "LogisticRegression", "default", "difference", "from, to"]
    print_head(*head, "s a fit", f"difference, folds={FOLDS}", "from, to")
    for name in options.sets or SETS["default"]:
        linear, ours, in_folds, seconds = [], [], [], []
        size = len(read_table(options.data, name)[1])
        splits = options.seeds or (SPLITS_OF_NOISY if size < NOISY_TABLE else SPLITS)
        for seed in range(splits):
            rows = load(options.data, name, seed, options.standardize)
            start = time.perf_counter()
            model = train_default(rows, seed, options.head_kernel)
            seconds.append(time.perf_counter() - start)
            ours.append(score(model, rows.test))
            linear += score_logistic(rows)
            if size < SMALL_TABLE and seed < SPLITS_IN_FOLDS:
                merged = rows.merge()
                model = train_default(merged, seed, options.head_kernel, folds=FOLDS)
                in_folds.append(score(model, merged.test) - score_logistic(merged)[0])
        areas = [f"{statistics.mean(values):.4f}" for values in (linear, ours)]
        differences = [a - b for a, b in zip(ours, linear, strict=True)]
        time_of_fit = f"{statistics.median(seconds):.1f}"
        cells = [*format_differences(differences), time_of_fit, *format_differences(in_folds)]
        print_row(name, f"{size:,}", f"{splits}", *areas, *cells)


def format_differences(differences):
    """Give mean and standard error, and the lowest and highest."""
    if len(differences) < 2:
        return *(f"{d:+.4f}" for d in differences), *[""] * (2 - len(differences))
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    mark = "" if mean >= AT_LEAST else " (short)"
    return f"{mean:+.4f} ± {error:.4f}{mark}", f"{min(differences):+.4f}, {max(differences):+.4f}"


def measure_overhead(hypermodel, objective, arguments, trials):
    """Give the milliseconds of a trial within and beyond `fit`."""
    with searching(hypermodel, objective, max_trials=trials, seed=0) as tuner:
        start = time.perf_counter()
        tuner.search(**arguments)
        seconds = (time.perf_counter() - start) / trials
        within = results_dataframe(tuner)["fit_seconds"].mean()
    return within * 1e3, (seconds - within) * 1e3


def run_overhead(options):
    """Compare what a trial takes beyond `fit`, in turns; the first turn warms up."""
    print_head("set", "hypermodel", "ms in fit", "ms beyond fit", "ratio [quartiles]")
    for name in options.sets or SETS["overhead"]:
        rows = load(options.data, name, 0)
        hypermodel = make_hypermodel(rows)
        ours = make_our_arguments(rows, FEW_EPOCHS)
        ways = {
            "hand-written": (
                Handwritten(),
                keras_tuner.Objective("val_auc", "max"),
                make_by_hand_arguments(rows, FEW_EPOCHS),
            ),
            "ours": (hypermodel, hypermodel.objective, ours),
        }
        found = {who: [] for who in ways}
        for number in range(options.rounds + 1):
            for who, way in ways.items():
                run = measure_overhead(*way, trials=10 if number else 2)
                found[who] += [run] if number else []
        for who, runs in found.items():
            within, beyond = (statistics.median(values) for values in zip(*runs, strict=True))
            pairs = zip(runs, found["hand-written"], strict=True)
            low, middle, high = statistics.quantiles([a[1] / b[1] for a, b in pairs], n=4)
            ratio = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            print_row(name, who, f"{within:.0f}", f"{beyond:.0f}", ratio)


def measure_memory(options):
    """Give the peaks after each of 30 trials in this process."""
    rows = load(options.data, (options.sets or SETS["memory"])[0], 0)
    keras.utils.set_random_seed(0)
    hypermodel, objective = Handwritten(), keras_tuner.Objective("val_auc", "max")
    arguments = make_by_hand_arguments(rows, epochs=FEW_EPOCHS)
    if options.worker == "ours":
        hypermodel = make_hypermodel(rows)
        objective = hypermodel.objective
        arguments = make_our_arguments(rows, epochs=FEW_EPOCHS)
    with searching(hypermodel, objective, max_trials=30, seed=0) as tuner:
        tuner.search(**arguments)
    return tuner.peaks


def run_memory(options):
    """Compare the memory after 30 trials with that after 5, each search in a new process."""
    head = ["backend", "hypermodel", "MB after trial 5", "after trial 30"]
    print_head(*head, "ratio (at most 1.1)", "MB a trial, 16 to 30")
    for backend in ("tensorflow", "jax"):
        for who in ("ours", "hand-written"):
            environment = {**os.environ, "KERAS_BACKEND": backend}
            command = [sys.executable, __file__, "--data", options.data, "--worker", who]
            if options.sets:
                command += ["--sets", *options.sets]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            peaks = json.loads(done.stdout.splitlines()[-1])
            early, late = peaks[4], peaks[29]
            mark = "" if late / early <= 1.1 else " (over)"
            growth = f"{(late - peaks[14]) / 15:.1f}"
            cells = f"{early:.0f}", f"{late:.0f}", f"{late / early:.3f}{mark}", growth
            print_row(backend, who, *cells)


def print_head(*names):
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|", flush=True)


def print_row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of parquet tables")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sets", nargs="+", help="names of tables, instead of the part's own")
    parser.add_argument("--seeds", type=int, help="splits: 1 for search, 3 to 12 for default")
    parser.add_argument("--head-kernel", help="initializer of the head for default, not zeros")
    parser.add_argument("--trials", type=int, default=20, help="trials of our search")
    parser.add_argument("--rounds", type=int, default=3, help="turns of overhead")
    parser.add_argument(
        "--standardize",
        choices=("numbers", "all"),
        default="numbers",
        help="in default: whether one-hot columns stay 0 and 1",
    )
    parser.add_argument("--worker", choices=("ours", "hand-written"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure_memory(options)))
        return
    runs = {"search": run_search, "default": run_default}
    runs |= {"overhead": run_overhead, "memory": run_memory}
    for part in options.parts:
        print(f"\n{part}, {keras.backend.backend()}\n")
        runs[part](options)


if __name__ == "__main__":
    main()
