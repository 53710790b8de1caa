"""How long one row takes, and 1,024, beside the backend's own bare compiled call.

    python benchmarks/latency.py                              # all backends
    python benchmarks/latency.py --backend torch --rounds 15

README.md beside this file says what is measured and how to read the table.
"""

import argparse
import functools
import gc
import importlib.util
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

BACKENDS = ("tensorflow", "jax", "torch")

FEATURES = 20
HIDDEN_UNITS = (64, 32)
ROWS = (1, 1024)
BARE = "bare compiled call"
TARGET = 2  # of one row with Predictor, as a ratio to the bare compiled call
WARM_UP_CALLS = 5
ROUND_SECONDS = 0.05  # that a round takes for each contender, with at most as many calls as
MAX_TURNS = 51
TOLERANCE = 1e-5  # of a probability; LiteRT and ONNX Runtime have a sigmoid of their own

# What waits for a core that somebody else has would be measured, not what is computed.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

Score = Callable[[Any], Any]
"""Takes rows in NumPy and returns their probabilities in NumPy."""


# Keras is imported inside the functions, since only a worker knows its backend.


def make_table() -> tuple[Any, Any]:
    """Return features and labels that are partly a matter of chance."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, size=(max(ROWS), FEATURES)).astype("float32")
    y = x[:, 0] + rng.normal(size=len(x)) > 3.0
    return x, y.astype("float32")


def make_model(x: Any, y: Any) -> Any:
    """Return a classifier with a scaler, trained a little."""
    import keras

    import keras_binclf

    scaler = keras.layers.Normalization()
    scaler.adapt(x)
    model = keras_binclf.binary_classifier(FEATURES, hidden_units=HIDDEN_UNITS, scaler=scaler)
    model.fit(x, y, verbose=0)
    return model


def bare_contender(model: Any) -> Score:
    """Return the backend's own compiled call: arrays in, NumPy out, no checks, fixed weights."""
    import keras

    makers = {"tensorflow": bare_on_tensorflow, "jax": bare_on_jax, "torch": bare_on_torch}
    compile_for = functools.cache(functools.partial(makers[keras.backend.backend()], model))
    return lambda rows: compile_for(rows.shape)(rows)


def bare_on_tensorflow(model: Any, shape: tuple[int, ...]) -> Score:
    """Return a concrete function, compiled by XLA."""
    import tensorflow as tf

    function = tf.function(lambda rows: model(rows, training=False), jit_compile=True)
    concrete = function.get_concrete_function(tf.TensorSpec(shape, "float32"))
    return lambda rows: concrete(tf.constant(rows)).numpy()


def bare_on_jax(model: Any, shape: tuple[int, ...]) -> Score:
    """Return a jitted function, with the weights as its constants."""
    import jax
    import numpy as np

    function = jax.jit(lambda rows: model(rows, training=False))
    return lambda rows: np.asarray(function(rows))


def bare_on_torch(model: Any, shape: tuple[int, ...]) -> Score:
    """Return the operations that `make_fx` records, in inference mode."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.inference_mode():
        graph = make_fx(lambda rows: model(rows, training=False))(torch.zeros(shape))

    def score(rows: Any) -> Any:
        with torch.inference_mode():
            return graph(torch.from_numpy(rows)).numpy()

    return score


def keras_contenders(model: Any) -> dict[str, Score]:
    """Return what scores with the model in this process, the bare compiled call first."""
    import keras

    from keras_binclf import Predictor

    return {
        BARE: bare_contender(model),
        "model.predict": functools.partial(model.predict, verbose=0),
        "model.predict_on_batch": model.predict_on_batch,
        "model(x)": lambda rows: keras.ops.convert_to_numpy(model(rows, training=False)),
        "Predictor": Predictor(model),
        "Predictor.labels": Predictor(model).labels,
    }


def sklearn_contenders(x: Any, y: Any) -> dict[str, Score]:
    """Return pipelines of scikit-learn: one as simple as can be, one of the same widths."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Early stopping ends the training where nothing is gained, without a warning.
    network = MLPClassifier(HIDDEN_UNITS, early_stopping=True, n_iter_no_change=3)
    ends = {"LogisticRegression": LogisticRegression(), "MLPClassifier": network}
    contenders = {}
    for name, end in ends.items():
        pipeline = make_pipeline(StandardScaler(), end).fit(x, y)
        contenders[f"scikit-learn {name}"] = lambda rows, fit=pipeline: fit.predict_proba(rows)
    return contenders


def onnx_contender(model: Any, path: Path) -> Score:
    """Return the session of ONNX Runtime for what was exported to `path`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = [given.name for given in session.get_inputs()]
    return lambda rows: session.run(["probability"], {name: rows})[0]


def litert_contender(model: Any, path: Path) -> Score:
    """Return the interpreters of LiteRT for what was exported to `path`, one for each size."""
    from ai_edge_litert.interpreter import Interpreter

    @functools.cache
    def prepare(num_rows: int) -> Score:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        (place,) = [given["index"] for given in interpreter.get_input_details()]
        interpreter.resize_tensor_input(place, (num_rows, FEATURES))
        interpreter.allocate_tensors()
        outputs = interpreter.get_output_details()
        # Names are not kept by every converter; labels are integers.
        (found,) = [given["index"] for given in outputs if given["dtype"].__name__ == "float32"]

        def score(rows: Any) -> Any:
            interpreter.set_tensor(place, rows)
            interpreter.invoke()
            return interpreter.get_tensor(found)

        return score

    return lambda rows: prepare(len(rows))(rows)


EXPORTED: dict[str, tuple[str, str, str, Callable[[Any, Path], Score]]] = {
    "ONNX Runtime": ("onnx", "model.onnx", "onnxruntime", onnx_contender),
    "LiteRT": ("litert", "model.tflite", "ai_edge_litert", litert_contender),
}
"""By name: format, file, package to run it with, and what makes the contender."""


def exported_contenders(model: Any, folder: Path) -> dict[str, Score]:
    """Return what runs the exported model; what is not installed is left out, with a line."""
    from keras_binclf import export

    contenders = {}
    for name, (file_format, file_name, package, make) in EXPORTED.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name} is left out: there is no {package} here.", flush=True)
            continue
        export(model, folder / file_name, format=file_format)
        contenders[name] = make(model, folder / file_name)
    return contenders


def check_same_model(contenders: dict[str, Score], x: Any) -> None:
    """Stop where the probabilities differ: to compare different models would mean nothing."""
    import numpy as np

    expected = contenders["model.predict"](x)
    for name, score in contenders.items():
        if name.startswith("scikit-learn") or name.endswith("labels"):
            continue
        difference = float(np.abs(score(x) - expected).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{name} scores otherwise: probabilities differ by {difference}.")


def count_turns(call: Callable[[], Any]) -> int:
    """Return how often a contender is called in a round."""
    for _ in range(WARM_UP_CALLS):
        call()
    fastest = min(time_call(call) for _ in range(3))
    return min(max(round(ROUND_SECONDS / fastest), 1), MAX_TURNS)


def time_call(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(contenders: dict[str, Score], rows: Any, rounds: int) -> dict[str, list[float]]:
    """Return the median seconds of each contender in each round.

    They take turns, in a new order each round, so that a busy moment of the machine meets all.
    """
    order = random.Random(0)
    calls = {name: functools.partial(score, rows) for name, score in contenders.items()}
    turns = {name: count_turns(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()  # a collection would strike whoever happens to run
    for _ in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            call = calls[name]
            call()  # The caches belong to the one before.
            samples = [time_call(call) for _ in range(turns[name])]
            seconds[name].append(statistics.median(samples))
    gc.enable()
    return seconds


def print_table(backend: str, results: dict[int, dict[str, list[float]]]) -> None:
    """Print a line for each contender, with its ratio to the bare compiled call for each size."""
    heading = "".join(f" µs, {rows:,} rows | ratio [quartiles] |" for rows in results)
    print(f"\n| {backend} |{heading}\n|---|" + "---|" * 2 * len(results))
    for name in results[1]:
        cells = ""
        for seconds in results.values():
            ratios = [ours / base for ours, base in zip(seconds[name], seconds[BARE], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            microseconds = statistics.median(seconds[name]) * 1e6
            cells += f" {microseconds:.0f} | {middle:.2f} [{low:.2f}, {high:.2f}] |"
        print(f"| {name} |{cells}")
    print(f"\nTarget for one row with Predictor: a ratio of at most {TARGET}.", flush=True)


def work(backend: str, rounds: int) -> None:
    """Measure on the backend of this process."""
    import keras

    x, y = make_table()
    model = make_model(x, y)
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            **keras_contenders(model),
            **sklearn_contenders(x, y),
            **exported_contenders(model, Path(folder)),
        }
        check_same_model(contenders, x)
        results = {rows: measure(contenders, x[:rows], rounds) for rows in ROWS}
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"\nPython {platform.python_version()}, Keras {keras.version()}, {rounds} rounds{load}")
    print_table(backend, results)


def main() -> None:
    """Parse the command line, and measure in a fresh process for each backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default=",".join(BACKENDS), help="of " + ", ".join(BACKENDS))
    parser.add_argument("--rounds", type=int, default=21, help="samples of each cell")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    backends = arguments.backend.split(",")
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2, quartiles need as many.")
    if not set(backends) <= set(BACKENDS):
        parser.error(f"--backend must be of {', '.join(BACKENDS)}. Received: {arguments.backend}")
    if arguments.worker:
        work(arguments.backend, arguments.rounds)
        return
    for backend in backends:
        command = [sys.executable, __file__, "--worker", "--backend", backend]
        command += ["--rounds", str(arguments.rounds)]
        environment = {**ONE_THREAD, **os.environ, "KERAS_BACKEND": backend.split("-")[0]}
        # Backends talk on stderr as they start; it matters only where the worker fails.
        ran = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
        if ran.returncode:
            raise SystemExit(f"The worker of {backend} failed.\n{ran.stderr}")


if __name__ == "__main__":
    main()
