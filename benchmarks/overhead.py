"""What our layers cost beside the same network written by hand in plain Keras.

    python benchmarks/overhead.py                              # TensorFlow and JAX
    python benchmarks/overhead.py --backend torch --rounds 15

README.md beside this file says what is measured and how to read the tables.
"""

import argparse
import functools
import gc
import itertools
import json
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

TARGET = 1.03
BACKENDS = ("tensorflow", "jax", "torch")
FEATURES = 20
BATCH_SIZES = (32, 1024)
BATCHES = 100  # in the table that `fit` and `predict` go through
WARM_UP_CALLS = 5
ROUND_SECONDS = 0.05  # that a round takes for each model, with at most as many calls as
MAX_TURNS = 51

TRAINING = ("train_on_batch", "fit")
INFERENCE = ("predict", "predict_on_batch")
EAGER = ("model(x)",)
LOOPS = ("fit", "predict")

# Threads that wait for a core which somebody else has cost more than they bring in matrices of
# this size, and they blur every number. Work on one thread takes longer, and equally so for all.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

Sample = Callable[[], float]
"""Does a piece of work and returns the seconds per step or call."""


# The networks. Each is written by hand in the way of any Keras tutorial, and then with our parts.
# Keras is imported inside the functions, since only a worker knows its backend.


def plain_dropout() -> tuple[Any, list[Any]]:
    """20-64-32-1 with dropout; the model and its layers in the order of our weights."""
    from keras import Input, Model
    from keras.layers import Dense, Dropout

    hidden = [Dense(64, activation="relu"), Dense(32, activation="relu")]
    output = Dense(1, activation="sigmoid")
    inputs = Input((FEATURES,))
    x = Dropout(0.3)(hidden[0](inputs))
    x = Dropout(0.3)(hidden[1](x))
    return Model(inputs, output(x)), [*hidden, output]


def plain_residual() -> tuple[Any, list[Any]]:
    """20-64-64-1 with batch normalization and skips, the first of them projected."""
    from keras import Input, Model
    from keras.layers import Activation, Add, BatchNormalization, Dense

    hidden = [Dense(64), Dense(64)]
    normalization = [BatchNormalization(), BatchNormalization()]
    projection = Dense(64, use_bias=False)
    output = Dense(1, activation="sigmoid")
    inputs = Input((FEATURES,))
    x = Activation("relu")(normalization[0](hidden[0](inputs)))
    x = Add()([projection(inputs), x])
    y = Activation("relu")(normalization[1](hidden[1](x)))
    x = Add()([x, y])
    layers = [hidden[0], normalization[0], projection, hidden[1], normalization[1], output]
    return Model(inputs, output(x)), layers


NETWORKS: dict[str, tuple[Callable[[], tuple[Any, list[Any]]], dict[str, Any]]] = {
    "dropout": (plain_dropout, {"hidden_units": (64, 32), "dropout_rate": 0.3}),
    "residual": (
        plain_residual,
        {"hidden_units": (64, 64), "normalization": "batch", "residual": True},
    ),
}


def make_models(network: str) -> dict[str, Any]:
    """Return the same network four times; all compiled alike, with the same weights."""
    import keras

    import keras_binclf

    make_plain, options = NETWORKS[network]
    plain, layers = make_plain()
    # Two equal models differ by where their weights lie in memory and by what the neighbours on
    # this machine do: what the twin's ratio differs from 1 is noise, in every row.
    twin, twin_layers = make_plain()
    inputs = keras.Input((FEATURES,))
    hidden = keras_binclf.MLPBlock(**options)(inputs)
    blocks = keras.Model(inputs, keras_binclf.BinaryHead()(hidden))
    classifier = keras_binclf.binary_classifier(FEATURES, **options, compile=False)

    weights = [layer.get_weights() for layer in layers]
    for layer, values in zip(twin_layers, weights, strict=True):
        layer.set_weights(values)
    for model in (blocks, classifier):
        *_, block, head = model.layers
        ours = [layer for layer in block.layers if layer.weights]
        for layer, values in zip(ours, weights[:-1], strict=True):
            layer.set_weights(values)
        head.set_weights([*weights[-1], head.get_weights()[-1]])  # the threshold stays
    models = {"plain": plain, "twin": twin, "blocks": blocks, "classifier": classifier}
    for model in models.values():
        # A step of zero costs as much as any other, and leaves all four the same network: training
        # would take them apart, and decaying moments end in denormal numbers, which are slow.
        # One cheap metric: a dear one would hide our share.
        model.compile(
            keras.optimizers.Adam(0.0),
            loss=keras.losses.BinaryCrossentropy(),
            metrics=[keras.metrics.BinaryAccuracy()],
        )
    return models


def check_same_network(models: dict[str, Any], x: Any) -> None:
    """Stop where the models differ: a comparison of different networks would mean nothing."""
    import numpy as np

    reference = models["plain"].predict_on_batch(x)
    for name, model in models.items():
        difference = float(np.abs(model.predict_on_batch(x) - reference).max())
        if difference > 1e-6:
            raise RuntimeError(f"{name} is another network: outputs differ by {difference}.")
        trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        expected = sum(int(np.prod(weight.shape)) for weight in models["plain"].trainable_weights)
        if trainable != expected:
            raise RuntimeError(f"{name} is another network: {trainable}, not {expected} weights.")


# The measurements. A sample times one short piece of work of one model.


def call_sample(call: Callable[[], Any]) -> Sample:
    """Return a sample of one call, in seconds; as a side effect, warm up and compile."""
    for _ in range(WARM_UP_CALLS):
        call()

    def sample() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return sample


def loop_sample(run: Callable[..., Any]) -> Sample:
    """Return a sample of a loop of Keras, `fit` or `predict`, in seconds per batch.

    The median over its batches: the first of them, which set things up, and those that somebody
    else's work interrupts do not count. What the call costs as a whole, such as the pipeline that
    TensorFlow makes for the data, is Keras's own, the same for all, and would hide our share.
    """
    import keras

    class BatchTimes(keras.callbacks.Callback):
        """Notes when each batch is done. It asks for the numbers, so that no work is left over."""

        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())  # Keras has fetched the logs by now

        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            keras.tree.map_structure(keras.ops.convert_to_numpy, logs["outputs"])
            self.ends.append(time.perf_counter())

    def sample() -> float:
        times = BatchTimes()
        run(verbose=0, callbacks=[times])
        return statistics.median(end - start for start, end in itertools.pairwise(times.ends))

    return sample


def make_samples(models: dict[str, Any], batch_size: int) -> dict[str, dict[str, Sample]]:
    """Return the samplers, by measurement and model, of one network and batch size."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size * BATCHES, FEATURES)).astype("float32")
    y = (x[:, :1] + rng.normal(size=(len(x), 1)) > 0).astype("float32")
    batch_x, batch_y = x[:batch_size], y[:batch_size]
    tensor = keras.ops.convert_to_tensor(batch_x)

    samples: dict[str, dict[str, Sample]] = {}
    for name, model in models.items():
        loop = functools.partial(model.fit, x, y, batch_size=batch_size, shuffle=False)
        made = {
            "train_on_batch": call_sample(
                functools.partial(model.train_on_batch, batch_x, batch_y)
            ),
            "fit": loop_sample(loop),
            "predict": loop_sample(functools.partial(model.predict, x, batch_size=batch_size)),
            "predict_on_batch": call_sample(functools.partial(model.predict_on_batch, batch_x)),
            # The result is fetched, since some backends only queue the work.
            "model(x)": call_sample(lambda model=model: keras.ops.convert_to_numpy(model(tensor))),
        }
        for measurement, sample in made.items():
            samples.setdefault(measurement, {})[name] = sample
    return samples


def run_round(samplers: dict[str, Sample], turns: int, order: random.Random) -> dict[str, float]:
    """Return the median time of each model out of `turns` samples, taken in turns.

    They take turns call by call, so that a burst of somebody else's work meets all of them, and
    in a new order each time, so that neither a drift nor who ran before favours one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    gc.collect()
    gc.disable()  # a collection would strike whoever happens to run
    for _ in range(turns):
        for name in order.sample(list(samplers), len(samplers)):
            seconds[name].append(samplers[name]())
    gc.enable()
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure all networks and batch sizes; one row of the table each, with its rounds."""
    import numpy as np

    order = random.Random(0)
    rows: list[dict[str, Any]] = []
    for network in NETWORKS:
        models = make_models(network)
        check_same_network(models, np.random.default_rng(1).normal(size=(32, FEATURES)))
        for batch_size in BATCH_SIZES:
            for measurement, samplers in make_samples(models, batch_size).items():
                row = {"network": network, "batch_size": batch_size, "measurement": measurement}
                rows.append({**row, "samplers": samplers, "rounds": []})
    turns = [count_turns(row) for row in rows]
    gc.collect()
    gc.freeze()  # the backend's own objects need no look in every collection
    for _ in range(rounds):
        # All rows in each round, so that a busy minute of the machine spoils no row as a whole.
        for row, count in zip(rows, turns, strict=True):
            row["rounds"].append(run_round(row["samplers"], count, order))
        print(".", end="", flush=True)
    print()
    for row in rows:
        del row["samplers"]
    return rows


def count_turns(row: dict[str, Any]) -> int:
    """Return how often each model samples in a round: a loop of Keras is many samples in one."""
    sample = row["samplers"]["plain"]
    sample()  # warm, with this batch size
    fastest = min(sample() for _ in range(3))
    if row["measurement"] in LOOPS:
        return 1
    return min(max(round(ROUND_SECONDS / fastest), 1), MAX_TURNS)


# The tables.


def ratios(row: dict[str, Any], name: str) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile of model / plain, round by round."""
    quotients = [seconds[name] / seconds["plain"] for seconds in row["rounds"]]
    low, middle, high = statistics.quantiles(quotients, n=4)
    return low, middle, high


def print_table(backend: str, versions: str, rows: list[dict[str, Any]]) -> None:
    """Print one line per network, batch size and measurement."""
    names = ("twin", "blocks", "classifier")
    print(f"\n{backend}: time of a model / time of plain Keras, median [quartiles] ({versions})\n")
    heading = "".join(f"{name:>20}" for name in names)
    print(f"{'network':<10}{'batch':>5}  {'measurement':<17}{'plain µs':>9}{heading}")
    for row in rows:
        cells = ""
        for name in names:
            low, middle, high = ratios(row, name)
            cells += f"  {middle:.3f} [{low:.2f} {high:.2f}]"
        microseconds = statistics.median(seconds["plain"] for seconds in row["rounds"]) * 1e6
        print(
            f"{row['network']:<10}{row['batch_size']:>5}  {row['measurement']:<17}"
            f"{microseconds:>9.0f}{cells}"
        )


def worst(results: dict[str, list[dict[str, Any]]], kinds: tuple[str, ...]) -> str:
    """Return the largest median of ours among these measurements, and of the twin's."""
    medians = [
        (ratios(row, name)[1], name, f"{backend}, {row['network']}, {row['batch_size']}")
        for backend, rows in results.items()
        for row in rows
        if row["measurement"] in kinds
        for name in ("twin", "blocks", "classifier")
    ]
    ours, _, where = max(median for median in medians if median[1] != "twin")
    noise = max(median[0] for median in medians if median[1] == "twin")
    return f"{ours:.3f} ({where}; twin at most {noise:.3f})"


def work(rounds: int, path: Path) -> None:
    """Measure on the backend of this process, and leave the samples in a file."""
    if hasattr(os, "sched_setaffinity"):  # on Linux
        # On one core, a thread that hands over to another need not wait for a second core to wake
        # up or to be free, which is most of the noise in the loops of TensorFlow.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import keras

    import keras_binclf

    versions = (
        f"Python {platform.python_version()}, Keras {keras.version()}, "
        f"keras_binclf {keras_binclf.__version__}, {rounds} rounds"
    )
    path.write_text(json.dumps({"versions": versions, "rows": measure(rounds)}))


def run_worker(backend: str, rounds: int) -> dict[str, Any]:
    """Measure in a fresh process, since a process has one backend."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.json"
        command = [sys.executable, __file__, "--rounds", str(rounds), "--worker", str(path)]
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
    parser.add_argument("--backend", default="tensorflow,jax", help="of tensorflow, jax, torch")
    parser.add_argument("--rounds", type=int, default=21, help="samples of each cell")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    backends = arguments.backend.split(",")
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2, quartiles need as many.")
    if not set(backends) <= set(BACKENDS):
        parser.error(f"--backend must be of {', '.join(BACKENDS)}. Received: {arguments.backend}")
    if arguments.worker:
        work(arguments.rounds, arguments.worker)
        return
    results = {}
    for backend in backends:
        result = run_worker(backend, arguments.rounds)
        results[backend] = result["rows"]
        print_table(backend, result["versions"], result["rows"])
    print("\nworst median of each measurement:")
    for name in (*TRAINING, *INFERENCE, *EAGER):
        print(f"  {name:<17}{worst(results, (name,))}")
    print(
        f"target {TARGET}: worst median in training {worst(results, TRAINING)}, "
        f"in inference {worst(results, INFERENCE)}; the eager model(x) has no target"
    )


if __name__ == "__main__":
    main()
