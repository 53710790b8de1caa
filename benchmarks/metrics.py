"""What our metrics cost beside those of Keras, and how exact they are beside scikit-learn.

    python benchmarks/metrics.py                               # all three backends
    python benchmarks/metrics.py --backend jax --rounds 5 --rows 5000000

`SIX` are the metrics of Keras that stand against one `ThresholdMetric`: what Keras has for the
quality of a decision at 0.5. Accuracy, precision, recall and F1 are scores that `ThresholdMetric`
gives under these names; `TrueNegatives` and `FalsePositives` complete the confusion table, and
from it whoever lists them computes the specificity and MCC, for which Keras has nothing. There is
no AUC among the six, and nothing else that looks at more than one threshold: those are dear, and
the comparison would be easy.

README.md beside this file says what is measured and how to read the tables.
"""

import argparse
import functools
import gc
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET_AUC = 1.2  # of one metric of ours to `keras.metrics.AUC()`, on TensorFlow and JAX
TARGET_SIX = 0.5  # of one `ThresholdMetric` to the six
TARGET_AREA = 1e-4  # of the two areas to what scikit-learn says
TARGET_BEST = 2e-3  # of the best scores
TARGET_FIXED = 1e-6  # of scores at a given threshold

BACKENDS = ("tensorflow", "jax", "torch")
BATCH_SIZES = (32, 1024, 65536)
BATCHES = 8  # different ones, so that no compiler takes work on them out of the loop
WARM_UP_CALLS = 5
SAMPLE_SECONDS = 0.006
TURNS = 3  # samples of each metric in a round

RATES = (0.5, 0.01, 0.001)
COSTS = {"cost_fn": 20.0, "cost_fp": 1.0}
THRESHOLD = 0.1
FIXED_ROWS = 1_000_000
STREAM = 65536  # rows in a batch of the exactness part

# As in overhead.py: threads that wait for a core which somebody else has blur every number.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

Sample = Callable[[], float]
"""Does a piece of work and returns the seconds per update or call."""

Run = Callable[[int], None]
"""Does so many updates or calls, and comes back when they are done."""

PEERS = ("AUC", "twin", "F1Score", "six")
OURS = (
    "BinaryAUC ROC",
    "BinaryAUC PR",
    "ThresholdMetric best",
    "BestThreshold",
    "ThresholdMetric fixed",
    "ECE",
    "Brier",
)
DECISIONS = ("ThresholdMetric fixed", "ThresholdMetric best")


# Keras is imported inside the functions, since only a worker knows its backend.


def make_metrics(name: str) -> list[Any]:
    """Return new metrics for a column of the table; more than one where it has that many."""
    from keras import metrics

    import keras_binclf as ours

    makers: dict[str, Callable[[], list[Any]]] = {
        "AUC": lambda: [metrics.AUC()],
        # The same once more: what its ratio differs from 1 is noise, in every row.
        "twin": lambda: [metrics.AUC()],
        "F1Score": lambda: [metrics.F1Score(threshold=0.5)],
        "six": lambda: [
            metrics.BinaryAccuracy(),
            metrics.Precision(),
            metrics.Recall(),
            metrics.F1Score(threshold=0.5),
            metrics.TrueNegatives(),
            metrics.FalsePositives(),
        ],
        "BinaryAUC ROC": lambda: [ours.BinaryAUC()],
        "BinaryAUC PR": lambda: [ours.BinaryAUC("PR")],
        "ThresholdMetric best": lambda: [ours.ThresholdMetric("f1", "best")],
        "BestThreshold": lambda: [ours.BestThreshold("f1")],
        "ThresholdMetric fixed": lambda: [ours.ThresholdMetric("f1")],
        "ECE": lambda: [ours.ExpectedCalibrationError()],
        "Brier": lambda: [ours.BrierScore()],
    }
    return makers[name]()


def draw_rows(rate: float, rows: int, seed: int = 0) -> tuple[Any, Any]:
    """Return labels and scores as columns: calibrated, and normal on the logit in each class."""
    import numpy as np

    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < rate
    evidence = rng.normal(np.where(labels, 1.0, -1.0), 1.0)  # its log likelihood ratio is twice it
    logits = math.log(rate / (1 - rate)) + 2 * evidence
    scores = 1 / (1 + np.exp(-logits))
    return labels.astype("float32")[:, None], scores.astype("float32")[:, None]


def draw_batches(batch_size: int) -> tuple[Any, Any]:
    """Return a stack of different batches of labels, and one of scores."""
    from keras import ops

    labels, scores = draw_rows(0.2, BATCHES * batch_size)
    shape = (BATCHES, batch_size, 1)
    return ops.convert_to_tensor(labels.reshape(shape)), ops.convert_to_tensor(
        scores.reshape(shape)
    )


# The measurements. Each mode makes a function that does many updates.


def finish(metrics: list[Any]) -> None:
    """Wait for what the backend has only queued."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready([variable.value for m in metrics for variable in m.variables])


def make_eager(metrics: list[Any], batch_size: int) -> Run:
    """`update_state` as whoever writes their own loop calls it, with tensors."""
    labels, scores = draw_batches(batch_size)
    batches = [(labels[i], scores[i]) for i in range(BATCHES)]

    def run(updates: int) -> None:
        for i in range(updates):
            y, p = batches[i % BATCHES]
            for metric in metrics:
                metric.update_state(y, p)
        finish(metrics)

    return run


def make_called(metrics: list[Any], batch_size: int, *, xla: bool = True) -> Run:
    """One compiled call an update, which is what a training or test step of a model is."""
    import keras

    labels, scores = draw_batches(batch_size)
    batches = [(labels[i], scores[i]) for i in range(BATCHES)]
    for metric in metrics:
        metric.update_state(*batches[0])  # some metrics make their variables only here
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def update(states: Any, y: Any, p: Any) -> Any:
            pairs = zip(metrics, states, strict=True)
            return [metric.stateless_update_state(state, y, p) for metric, state in pairs]

        states = [[variable.value for variable in metric.variables] for metric in metrics]

        def run(updates: int) -> None:
            nonlocal states
            for i in range(updates):
                states = update(states, *batches[i % BATCHES])
            jax.block_until_ready(states)

        return run

    import tensorflow as tf

    @tf.function(jit_compile=xla)
    def step(y: Any, p: Any) -> None:
        for metric in metrics:
            metric.update_state(y, p)

    def run_steps(updates: int) -> None:
        for i in range(updates):
            step(*batches[i % BATCHES])

    return run_steps


def make_result(metrics: list[Any], batch_size: int) -> Run:
    """An eager `result`, as at the end of an epoch."""
    import keras

    make_eager(metrics, batch_size)(1)

    def run(calls: int) -> None:
        for _ in range(calls):
            for metric in metrics:
                keras.ops.convert_to_numpy(metric.result())

    return run


def make_compiled(metrics: list[Any], batch_size: int, *, xla: bool, result: bool) -> Run:
    """Many updates in one compiled call, which hides what that call costs.

    With `result`, the value too after each update, as a step of `fit` does for its logs.
    """
    import keras

    labels, scores = draw_batches(batch_size)
    for metric in metrics:
        metric.update_state(labels[0], scores[0])  # some metrics make their variables only here
    if keras.backend.backend() == "jax":
        return _loop_in_jax(metrics, labels, scores, result)
    return _loop_in_tensorflow(metrics, labels, scores, result, xla)


def _loop_in_tensorflow(
    metrics: list[Any], labels: Any, scores: Any, result: bool, xla: bool
) -> Run:
    import tensorflow as tf
    from keras import ops

    def body(i: Any, total: Any) -> tuple[Any, Any]:
        y, p = labels[i % BATCHES], scores[i % BATCHES]
        for metric in metrics:
            metric.update_state(y, p)
            if result:
                total += ops.sum(metric.result())
        return i + 1, total

    @tf.function(jit_compile=xla, autograph=False)
    def loop(updates: Any) -> Any:
        start = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(lambda i, _: i < updates, body, start, parallel_iterations=1)

    return lambda updates: loop(tf.constant(updates))[1].numpy()


def _loop_in_jax(metrics: list[Any], labels: Any, scores: Any, result: bool) -> Run:
    import jax
    from keras import ops

    start = [[variable.value for variable in metric.variables] for metric in metrics]

    @jax.jit
    def loop(states: Any, labels: Any, scores: Any, updates: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:
            states, total = carry
            y, p = labels[i % BATCHES], scores[i % BATCHES]
            new = []
            for metric, state in zip(metrics, states, strict=True):
                new.append(metric.stateless_update_state(state, y, p))
                if result:
                    total += ops.sum(metric.stateless_result(new[-1]))
            return new, total

        return jax.lax.fori_loop(0, updates, body, (states, 0.0))

    return lambda updates: jax.block_until_ready(loop(start, labels, scores, updates))


GRAPH = functools.partial(make_compiled, xla=False, result=False)
XLA = functools.partial(make_compiled, xla=True, result=False)
STEP = functools.partial(make_compiled, xla=True, result=True)
UPDATES: dict[str, dict[str, Callable[[list[Any], int], Run]]] = {
    "tensorflow": {
        "eager": make_eager,
        "graph": functools.partial(make_called, xla=False),
        "XLA": make_called,
        "graph, in a loop": GRAPH,
        "XLA, in a loop": XLA,
    },
    "jax": {"eager": make_eager, "jit": make_called, "jit, in a loop": XLA},
    "torch": {"eager": make_eager},
}
# For information: what a target would say nothing about.
RESULTS: dict[str, dict[str, Callable[[list[Any], int], Run]]] = {
    "tensorflow": {"update + result, XLA": STEP, "result, eager": make_result},
    "jax": {"update + result, jit": STEP, "result, eager": make_result},
    "torch": {"result, eager": make_result},
}


def make_sample(run: Run) -> Sample:
    """Return a sample in seconds per update; as a side effect, compile and warm up."""
    for _ in range(WARM_UP_CALLS):
        run(1)
    updates = 1
    # The fastest of some: with too few updates in a sample, what the call itself costs would count.
    while (fastest := min(measure_once(run, updates) for _ in range(3))) < SAMPLE_SECONDS / 2:
        updates *= 2
    updates = max(round(updates * SAMPLE_SECONDS / fastest), 1)
    return lambda: measure_once(run, updates) / updates


def measure_once(run: Run, updates: int) -> float:
    """Return the seconds that the processor worked: those that others had it do not count."""
    start = time.process_time()
    run(updates)
    return time.process_time() - start


def run_round(samplers: dict[str, Sample], order: random.Random) -> dict[str, float]:
    """Return the median time of each metric out of `TURNS` samples.

    They take turns, so that a burst of somebody else's work meets all of them, and in a new order
    each time, so that neither a drift nor who ran before favours one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    gc.collect()
    gc.disable()  # a collection would strike whoever happens to run
    for _ in range(TURNS):
        for name in order.sample(list(samplers), len(samplers)):
            seconds[name].append(samplers[name]())
    gc.enable()
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(backend: str, rounds: int) -> list[dict[str, Any]]:
    """Measure all modes and batch sizes; one row of the tables each, with its rounds."""
    rows: list[dict[str, Any]] = []
    for mode, make in {**UPDATES[backend], **RESULTS[backend]}.items():
        for batch_size in BATCH_SIZES[:1] if make is make_result else BATCH_SIZES:
            samplers = {
                name: make_sample(make(make_metrics(name), batch_size)) for name in (*PEERS, *OURS)
            }
            row = {"mode": mode, "batch_size": batch_size, "timed": mode in UPDATES[backend]}
            rows.append({**row, "samplers": samplers, "rounds": []})
            print("+", end="", flush=True)
    gc.collect()
    gc.freeze()  # the backend's own objects need no look in every collection
    order = random.Random(0)
    for _ in range(rounds):
        # All rows in each round, so that a busy minute of the machine spoils no row as a whole.
        for row in rows:
            row["rounds"].append(run_round(row["samplers"], order))
        print(".", end="", flush=True)
    print()
    for row in rows:
        del row["samplers"]
    return rows


# Exactness. The oracles share no code with us.


def stream(metric: Any, labels: Any, scores: Any) -> float:
    """Return what a metric says after all rows, in batches."""
    import keras

    for start in range(0, len(labels), STREAM):
        metric.update_state(labels[start : start + STREAM], scores[start : start + STREAM])
    return keras.ops.convert_to_numpy(metric.result()).item()


def best_scores(labels: Any, scores: Any) -> dict[str, float]:
    """Return the best values over all thresholds, from the exact counts at every distinct score."""
    import numpy as np
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    positives = np.sum(labels, dtype="float64")
    negatives = len(labels) - positives
    tp, fp = np.rint(tpr * positives), np.rint(fpr * negatives)
    fn, tn = positives - tp, negatives - fp
    with np.errstate(invalid="ignore"):  # where nothing, or everything, is predicted
        mcc = (tp * tn - fp * fn) / np.sqrt((tp + fp) * positives * negatives * (tn + fn))
    return {
        "best F1": np.max(2 * tp / (2 * tp + fp + fn)).item(),
        "best MCC": np.nanmax(mcc).item(),
        "best balanced accuracy": np.max((tpr + 1 - fpr) / 2).item(),
        "best cost": np.min(COSTS["cost_fn"] * fn + COSTS["cost_fp"] * fp).item() / len(labels),
    }


def compare_curves(rate: float, rows: int) -> list[dict[str, Any]]:
    """Return the exact value, ours and that of Keras, of the areas and the best scores."""
    from keras import metrics
    from sklearn.metrics import average_precision_score, roc_auc_score

    import keras_binclf as ours

    labels, scores = draw_rows(rate, rows)
    said = functools.partial(stream, labels=labels, scores=scores)
    exact = {
        "ROC AUC": float(roc_auc_score(labels.ravel(), scores.ravel())),
        "PR AUC": float(average_precision_score(labels.ravel(), scores.ravel())),
        **best_scores(labels.ravel(), scores.ravel()),
    }
    mine = {
        "ROC AUC": said(ours.BinaryAUC()),
        "PR AUC": said(ours.BinaryAUC("PR")),
        "best F1": said(ours.ThresholdMetric("f1", "best")),
        "best MCC": said(ours.ThresholdMetric("mcc", "best")),
        "best balanced accuracy": said(ours.ThresholdMetric("balanced_accuracy", "best")),
        "best cost": said(ours.ThresholdMetric("cost", "best", **COSTS)),
    }
    theirs = {
        "ROC AUC": said(metrics.AUC()),
        "PR AUC": said(metrics.AUC(curve="PR")),
        # The best that the standard metrics offer: one for each of some thresholds.
        "best F1": max(said(metrics.F1Score(threshold=i / 10)) for i in range(1, 10)),
    }
    return [
        {"rate": rate, "value": name, "exact": value, "ours": mine[name], "keras": theirs.get(name)}
        for name, value in exact.items()
    ]


def compare_fixed(rows: int) -> dict[str, float]:
    """Return how far each score at a given threshold is from what scikit-learn says."""
    import numpy as np
    from sklearn import metrics

    import keras_binclf as ours

    labels, scores = draw_rows(0.01, min(rows, FIXED_ROWS))
    y = labels.ravel() > 0
    p = scores.ravel() > np.float32(THRESHOLD)
    recall, specificity = metrics.recall_score(y, p), metrics.recall_score(y, p, pos_label=False)
    (_, fp), (fn, _) = metrics.confusion_matrix(y, p)
    exact: dict[str, tuple[float, dict[str, float]]] = {
        "accuracy": (metrics.accuracy_score(y, p), {}),
        "balanced_accuracy": (metrics.balanced_accuracy_score(y, p), {}),
        "precision": (metrics.precision_score(y, p), {}),
        "recall": (recall, {}),
        "specificity": (specificity, {}),
        "npv": (metrics.precision_score(y, p, pos_label=False), {}),
        "f1": (metrics.f1_score(y, p), {}),
        "fbeta": (metrics.fbeta_score(y, p, beta=2.0), {"beta": 2.0}),
        "jaccard": (metrics.jaccard_score(y, p), {}),
        "mcc": (metrics.matthews_corrcoef(y, p), {}),
        "cohen_kappa": (metrics.cohen_kappa_score(y, p), {}),
        "youden_j": (metrics.balanced_accuracy_score(y, p, adjusted=True), {}),
        "g_mean": (math.sqrt(recall * specificity), {}),
        "cost": ((COSTS["cost_fn"] * fn + COSTS["cost_fp"] * fp) / len(y), COSTS),
    }
    return {
        score: abs(
            stream(ours.ThresholdMetric(score, THRESHOLD, **options), labels, scores) - value
        )
        for score, (value, options) in exact.items()
    }


# The tables.


def ratios(row: dict[str, Any], name: str, peer: str) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile of metric / peer, round by round."""
    quotients = [seconds[name] / seconds[peer] for seconds in row["rounds"]]
    low, middle, high = statistics.quantiles(quotients, n=4)
    return low, middle, high


def ratio_cell(row: dict[str, Any], name: str, peer: str, target: float = math.inf) -> str:
    low, middle, high = ratios(row, name, peer)
    median = f"**{middle:.2f}**" if middle > target else f"{middle:.2f}"
    return f"{median} [{low:.2f} {high:.2f}]"


def print_line(*cells: Any) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def print_heading(*cells: str) -> None:
    print_line(*cells)
    print("|" + "---|" * len(cells))


def microseconds(row: dict[str, Any], name: str) -> str:
    return f"{statistics.median(seconds[name] for seconds in row['rounds']) * 1e6:.1f}"


def print_times(backend: str, rows: list[dict[str, Any]]) -> None:
    """Print the ratios to the AUC of Keras, and those to the six."""
    held = [row for row in rows if row["timed"]]
    target = math.inf if backend == "torch" else TARGET_AUC
    goal = "without a target" if backend == "torch" else f"target {TARGET_AUC}, **over it**"
    print(f"\nTime of an update / that of `keras.metrics.AUC()`, median [quartiles], {goal}:\n")
    print_heading("mode", "batch", "AUC µs", "twin", *OURS)
    for row in held:
        cells = [ratio_cell(row, name, "AUC", target) for name in OURS]
        times = microseconds(row, "AUC"), ratio_cell(row, "twin", "AUC")
        print_line(row["mode"], row["batch_size"], *times, *cells)

    print(f"\nTime of an update / that of the six, target {TARGET_SIX}, and / that of `F1Score`:\n")
    against = [f"{name} / {peer}" for peer in ("six", "F1Score") for name in DECISIONS]
    print_heading("mode", "batch", "six µs", "F1Score µs", *against)
    for row in held:
        six = [ratio_cell(row, name, "six", TARGET_SIX) for name in DECISIONS]
        f1 = [ratio_cell(row, name, "F1Score") for name in DECISIONS]
        times = microseconds(row, "six"), microseconds(row, "F1Score")
        print_line(row["mode"], row["batch_size"], *times, *six, *f1)

    print("\nFor information, the value itself: time / that of `keras.metrics.AUC()`:\n")
    print_heading("what", "batch", "AUC µs", "twin", "F1Score", "six", *OURS)
    for row in rows:
        if not row["timed"]:
            cells = [ratio_cell(row, name, "AUC") for name in (*PEERS[1:], *OURS)]
            print_line(row["mode"], row["batch_size"], microseconds(row, "AUC"), *cells)


def print_exactness(rows: list[dict[str, Any]], fixed: dict[str, float], count: int) -> None:
    """Print the differences from scikit-learn."""
    print(
        f"\nDifference from scikit-learn, {count:,} rows; target {TARGET_AREA:.0e} for the areas, "
        f"{TARGET_BEST:.0e} for the best scores, **over it**:\n"
    )
    print_heading("positives", "value", "scikit-learn", "ours", "keras.metrics")
    for row in rows:
        target = TARGET_AREA if row["value"].endswith("AUC") else TARGET_BEST
        difference = row["ours"] - row["exact"]
        mine = f"{difference:+.1e}" if abs(difference) <= target else f"**{difference:+.1e}**"
        theirs = "none" if row["keras"] is None else f"{row['keras'] - row['exact']:+.1e}"
        print_line(f"{row['rate']:.1%}", row["value"], f"{row['exact']:.6f}", mine, theirs)
    score = max(fixed, key=lambda name: fixed[name])
    print(
        f"\nThe {len(fixed)} scores at threshold {THRESHOLD} on {min(count, FIXED_ROWS):,} rows: "
        f"largest difference {fixed[score]:.1e} ({score}), target {TARGET_FIXED:.0e}."
    )


def list_misses(backend: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for each median that is over its target."""
    pairs = [(name, "six", TARGET_SIX) for name in DECISIONS]
    if backend != "torch":
        pairs += [(name, "AUC", TARGET_AUC) for name in OURS]
    return [
        f"{backend}, {row['mode']}, {row['batch_size']}: {name} / {peer} {middle:.2f}"
        f" (twin {ratios(row, 'twin', 'AUC')[1]:.2f}), target {target}"
        for row in rows
        if row["timed"]
        for name, peer, target in pairs
        if (middle := ratios(row, name, peer)[1]) > target
    ]


def work(arguments: argparse.Namespace) -> None:
    """Measure on the backend of this process, and leave the samples in a file."""
    import keras

    import keras_binclf

    versions = (
        f"Python {platform.python_version()}, Keras {keras.version()}, "
        f"keras_binclf {keras_binclf.__version__}, {arguments.rounds} rounds"
    )
    curves = [line for rate in RATES for line in compare_curves(rate, arguments.rows)]
    fixed = compare_fixed(arguments.rows)
    if hasattr(os, "sched_setaffinity"):  # on Linux
        # On one core, nobody waits for a second core to wake up or to be free: see overhead.py.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = measure(keras.backend.backend(), arguments.rounds)
    result = {"versions": versions, "rows": rows, "curves": curves, "fixed": fixed}
    arguments.worker.write_text(json.dumps(result))


def run_worker(backend: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in a fresh process, since a process has one backend."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.json"
        numbers = ["--rounds", str(arguments.rounds), "--rows", str(arguments.rows)]
        command = [sys.executable, __file__, *numbers, "--worker", str(path)]
        environment = {**ONE_THREAD, **os.environ, "KERAS_BACKEND": backend}
        print(f"{backend} ", end="", file=sys.stderr, flush=True)
        # Backends talk on stderr as they start; it matters only where the worker fails.
        ran = subprocess.run(
            command, env=environment, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
        )
        if ran.returncode:
            raise SystemExit(f"The worker of {backend} failed.\n{ran.stderr}")
        result: dict[str, Any] = json.loads(path.read_text())
        return result


def main() -> None:
    """Parse the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default=",".join(BACKENDS), help="of tensorflow, jax, torch")
    parser.add_argument("--rounds", type=int, default=15, help="samples of each cell")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the exactness part")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    backends = arguments.backend.split(",")
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2, quartiles need as many.")
    if not 10_000 <= arguments.rows <= 5_000_000:
        parser.error("--rows must be from 10,000, for a few positives, to 5,000,000, for memory.")
    if not set(backends) <= set(BACKENDS):
        parser.error(f"--backend must be of {', '.join(BACKENDS)}. Received: {arguments.backend}")
    if arguments.worker:
        work(arguments)
        return
    misses = []
    for backend in backends:
        result = run_worker(backend, arguments)
        print(f"\n## {backend} ({result['versions']})")
        print_times(backend, result["rows"])
        print_exactness(result["curves"], result["fixed"], arguments.rows)
        misses += list_misses(backend, result["rows"])
    print("\nover target: " + ("none" if not misses else "".join(f"\n- {miss}" for miss in misses)))


if __name__ == "__main__":
    main()
