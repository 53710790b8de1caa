"""What it costs to log Adam's moments, beside the same training without a logger.

    python benchmarks/moments.py                        # TensorFlow and JAX
    python benchmarks/moments.py --backend torch --size 5k --rounds 15

README.md beside this file says what is measured and how to read the table.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time

BACKENDS = ("tensorflow", "jax", "torch")
FEATURES = 20
# Hidden units, rows of a batch, batches of a `fit`.
SIZES = {
    "5k": ((64, 56), 32, 300),
    "1M": ((1000, 1000), 32, 60),
    "1M, batch 256": ((1000, 1000), 256, 40),
    "20M": ((4400, 4400), 32, 20),
}
TARGETS = {"every 10": 1.05, "every": 1.25}


def make_reader():
    """What people write who have no logger: all moments to NumPy after each batch."""
    import keras
    import numpy as np

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            optimizer = self.model.optimizer
            for variable in optimizer._momentums + optimizer._velocities:
                self.norm = np.linalg.norm(keras.ops.convert_to_numpy(variable))

    return Reader()


def measure(size, rounds):
    """Give the seconds a step of each way to watch, one list for each."""
    import keras
    import numpy as np

    from keras_binclf import AdamMomentLogger

    units, rows, batches = SIZES[size]
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            *(keras.layers.Dense(n, "relu") for n in units),
            keras.layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-5), loss=loss)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows * batches, FEATURES)).astype("float32")
    y = rng.integers(0, 2, size=len(x)).astype("float32")
    ways = {
        "none": [],
        "every 10": [AdamMomentLogger()],
        "every": [AdamMomentLogger(1)],
        "NumPy": [make_reader()],
        "histograms, every 10": [AdamMomentLogger(quantities=["gradient_histogram"])],
    }

    def fit(way):
        start = time.perf_counter()
        model.fit(x, y, batch_size=rows, verbose=0, callbacks=ways[way])
        return time.perf_counter() - start

    first = {way: fit(way) for way in ways}  # compiles the step, and what each logger computes
    seconds = {way: [] for way in ways}
    for number in range(rounds):
        order = list(ways)
        random.Random(number).shuffle(order)
        for way in order:
            seconds[way].append(fit(way) / batches)
    compiling = first["every 10"] - batches * statistics.median(seconds["every 10"])
    return {"parameters": model.count_params(), "seconds": seconds, "compiling": compiling}


def run_worker(backend, size, rounds):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--worker", size, "--rounds", str(rounds)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def format_row(backend, size, found):
    seconds = found["seconds"]
    cells = [backend, size, f"{found['parameters']:,}"]
    cells.append(f"{statistics.median(seconds['none']) * 1e3:.2f}")
    for way in seconds:
        if way != "none":
            pairs = zip(seconds[way], seconds["none"], strict=True)
            ratios = [logged / plain for logged, plain in pairs]
            low, middle, high = statistics.quantiles(ratios, n=4)
            mark = " (over)" if middle > TARGETS.get(way, float("inf")) else ""
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]{mark}")
    cells.append(f"{found['compiling']:.1f}")
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--size", choices=list(SIZES), action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", choices=list(SIZES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker, options.rounds)))
        return
    head = ["backend", "size", "parameters", "ms a step, no logger"]
    head += ["every 10 (at most 1.05)", "every step (at most 1.25)", "all m and v to NumPy"]
    head += ["histogram, every 10", "s to compile"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for backend in options.backend or BACKENDS[:2]:
        for size in options.size or SIZES:
            print(format_row(backend, size, run_worker(backend, size, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
