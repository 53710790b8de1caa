"""What people build with the package: each function returns a compiled model and a few rows."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import load_elsewhere
import numpy as np
import zoo_classes
from keras import layers

from keras_binclf import BinaryHead, MLPBlock, TabularEncoder, binary_classifier, find_head

ROWS, STEPS, FEATURES, WORDS = 2 * load_elsewhere.BATCH_SIZE, 5, 6, 10


def compiled(model, optimizer="adam"):
    model.compile(optimizer, loss=find_head(model).loss())
    return model


def with_random_head(model):
    """Return the model with a head as after training, in place of one of zeros.

    `binary_classifier` starts from the latter, which gives every row the same.
    """
    head = find_head(model)
    head.kernel.assign(keras.initializers.GlorotUniform()(head.kernel.shape))
    return model


def make_table(*shape, offset=0.0, scale=1.0):
    """Return rows of `shape`, and labels that are a matter of chance where a row is average."""
    rng = np.random.default_rng(0)
    x = rng.normal(offset, scale, size=(ROWS, *shape)).astype("float32")
    y = x.reshape(ROWS, -1)[:, :1] > offset + 0.3 * scale * rng.normal(size=(ROWS, 1))
    return x, y.astype("float32")


def make_texts():
    """Return sentences of word numbers, padded with 0 behind their last word."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, WORDS, size=(ROWS, STEPS))
    x[np.arange(STEPS) >= rng.integers(1, STEPS + 1, size=(ROWS, 1))] = 0
    return x, (x[:, :1] > WORDS / 2).astype("float32")


def sequential():
    block = MLPBlock((8, 4), normalization="batch", dropout_rate=0.1)
    model = keras.Sequential([keras.Input((FEATURES,)), block, BinaryHead(prior=0.3)])
    return compiled(model), *make_table(FEATURES)


def functional():
    amount, city = keras.Input((FEATURES,), name="amount"), keras.Input((), name="city")
    hidden = layers.Concatenate()([amount, layers.Embedding(WORDS, 3)(city)])
    hidden = layers.Concatenate()([hidden, MLPBlock(4, activation="gelu", residual=True)(hidden)])
    # Small, so that 1e-6 is more than a few float32 steps of a logit.
    x, y = make_table(FEATURES, scale=0.3)
    model = keras.Model({"amount": amount, "city": city}, BinaryHead(activation=None)(hidden))
    return compiled(model), {"amount": x, "city": np.arange(ROWS) % WORDS}, y


def nested():
    encoder = keras.Sequential([keras.Input((FEATURES,)), MLPBlock(4), MLPBlock(3)])
    inputs = keras.Input((2, FEATURES))
    halves = [encoder(inputs[:, 0]), encoder(inputs[:, 1])]
    model = keras.Model(inputs, BinaryHead()(layers.Concatenate()(halves)))
    return compiled(model), *make_table(2, FEATURES)


def nested_with_its_head():
    inputs = keras.Input((FEATURES,))
    inner = with_random_head(binary_classifier(FEATURES, hidden_units=4, compile=False))
    model = keras.Model(inputs, inner(layers.LayerNormalization()(inputs)))
    return compiled(model), *make_table(FEATURES)


def time_distributed_head():
    block, head = layers.Dense(4, activation="tanh"), BinaryHead(prior=0.4)
    parts = [layers.TimeDistributed(block), layers.TimeDistributed(head)]
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *parts])
    x, y = make_table(STEPS, FEATURES)
    return compiled(model), x, np.repeat(y[:, None], STEPS, axis=1)


def time_distributed_block():
    block = MLPBlock((8, 4), normalization="layer", residual=True)
    parts = [layers.TimeDistributed(block), layers.GlobalAveragePooling1D(), BinaryHead()]
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *parts])
    return compiled(model), *make_table(STEPS, FEATURES)


def convolutional():
    parts = [
        layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Conv2D(4, 2, padding="same"),
        layers.GlobalAveragePooling2D(),
    ]
    model = keras.Sequential([keras.Input((8, 8, 2)), *parts, MLPBlock(4), BinaryHead()])
    return compiled(model), *make_table(8, 8, 2)


def recurrent(layer):
    parts = [layers.Embedding(WORDS, 4, mask_zero=True), layer, MLPBlock(4), BinaryHead()]
    # Not Adam: of a word that occurs twice, Keras on TensorFlow squares each gradient by itself,
    # elsewhere their sum.
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    return compiled(keras.Sequential([keras.Input((STEPS,)), *parts]), optimizer)


def masked_lstm():
    return recurrent(layers.LSTM(4)), *make_texts()


def masked_gru():
    return recurrent(layers.Bidirectional(layers.GRU(4))), *make_texts()


def masked_steps():
    x, _ = make_texts()
    return recurrent(layers.GRU(4, return_sequences=True)), x, (x % 2)[..., None].astype("float32")


def two_heads():
    inputs = keras.Input((FEATURES,))
    hidden = MLPBlock((8, 4))(inputs)
    # In this order, which is not that of the alphabet.
    heads = [BinaryHead(activation=None, name="returns"), BinaryHead(prior=0.2, name="buys")]
    model = keras.Model(inputs, {head.name: head(hidden) for head in heads})
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        loss={head.name: head.loss() for head in heads},
        metrics={
            "returns": [keras.metrics.AUC(from_logits=True, name="auc")],
            "buys": [keras.metrics.BinaryAccuracy(name="accuracy")],
        },
    )
    x, y = make_table(FEATURES)
    return model, x, {"returns": y, "buys": (x[:, 1:2] > 0).astype("float32")}


def frozen_backbone():
    block = MLPBlock((8, 4), normalization="batch")
    backbone = keras.Sequential([keras.Input((FEATURES,)), block], name="backbone")
    x, y = make_table(FEATURES)
    backbone.compile("adam", loss="mse")
    backbone.fit(x, np.repeat(y, 4, axis=1), verbose=0)
    backbone.trainable = False
    inputs = keras.Input((FEATURES,))
    return compiled(keras.Model(inputs, BinaryHead()(backbone(inputs)))), x, y


def make_classifier(**options):
    x, y = make_table(FEATURES, offset=50.0, scale=10.0)
    scaler = layers.Normalization()
    scaler.adapt(x)
    options = {"hidden_units": (8, 4), "scaler": scaler, "prior": y.mean(), **options}
    return with_random_head(binary_classifier(FEATURES, **options)), x, y


def classifier():
    return make_classifier()


def classifier_with_lora():
    model, x, y = make_classifier(compile=False)
    model.get_layer("mlp_block").layers[0].enable_lora(2)
    return compiled(model), x, y


def classifier_with_frozen_sublayer():
    model, x, y = make_classifier(compile=False)
    model.get_layer("mlp_block").layers[1].trainable = False
    return compiled(model), x, y


def table_classifier():
    """With a column of each kind, gaps in each; more words than are one-hot."""
    random = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(20)] * 4)
    started = np.datetime64("2020-01-01T06:30") + random.integers(0, 30_000, 80) * np.timedelta64(
        37, "m"
    )
    table = {
        "amount": random.normal(size=80),
        "stamp": 1.7e9 + random.normal(size=80),
        "city": random.choice(["Rome", "Oslo", "größer"], 80),
        "word": random.permutation(words),
        "charge": random.normal(size=80).round(2).astype(str),
        "member": random.choice(["Yes", "no"], 80),
        "flag": random.random(80) < 0.5,
        "started": started,
        "constant": np.ones(80),
    }
    gaps = {
        "amount": np.nan,
        "city": " ",
        "word": "",
        "charge": "",
        "started": np.datetime64("NaT"),
    }
    for name, gap in gaps.items():
        table[name][random.integers(0, 80, 9)] = gap
    encoder = TabularEncoder(embedding="piecewise_linear")
    encoder.adapt(table)
    rows = {name: values[:ROWS] for name, values in table.items()}
    rows["city"] = np.where(np.arange(ROWS) == 3, "a new word", rows["city"])
    model = with_random_head(binary_classifier(encoder, hidden_units=(8, 4), compile=False))
    y = random.integers(0, 2, (ROWS, 1)).astype("float32")
    # Not Adam, as in `recurrent`: the embedding of a word that occurs twice.
    return compiled(model, keras.optimizers.SGD(0.1, momentum=0.9)), rows, y


def subclassed():
    model = zoo_classes.Subclassed()
    model.build((None, FEATURES))
    return compiled(model), *make_table(FEATURES)


def own_train_step():
    inputs = keras.Input((FEATURES,))
    outputs = BinaryHead()(MLPBlock(4, normalization="batch")(inputs))
    return compiled(zoo_classes.OwnTrainStep(inputs, outputs)), *make_table(FEATURES)


PLAIN = [
    sequential,
    functional,
    nested,
    nested_with_its_head,
    time_distributed_head,
    time_distributed_block,
    convolutional,
    masked_lstm,
    masked_gru,
    masked_steps,
    two_heads,
    frozen_backbone,
    classifier,
    classifier_with_lora,
    classifier_with_frozen_sublayer,
]
"""Load wherever keras_binclf is imported."""

WITH_TABLES = [table_classifier]
"""As those above, but take a table, which their encoder turns into what Keras takes."""

WITH_OWN_CLASSES = [subclassed, own_train_step]
"""Need `zoo_classes` too, and train in the words of one backend."""

TRAIN_ON_AT_RANDOM = {"sequential", "subclassed", "classifier_with_lora"}
"""Keras saves no state of dropout's random numbers, and merges the two factors of LoRA into the
kernel, to begin with new ones."""


@dataclasses.dataclass
class Weight:
    path: str
    trainable: bool
    moved: bool
    """Whether training changed it."""


@dataclasses.dataclass
class Trained:
    """What is known of a model that was trained and saved."""

    history: dict[str, list[float]]
    weights: list[Weight]
    answers: dict[str, np.ndarray]
    losses: list[float]
    """Of the two steps that follow on what was saved."""


def train_and_save(make, folder):
    """Train a model for two steps, and save it with rows to predict, for `load_elsewhere`."""
    keras.utils.set_random_seed(0)
    model, x, y = make()
    before = [to_numpy(weight) for weight in model.weights]
    history = load_elsewhere.train(model, x, y)
    weights = compare(model, before)
    cut_in_the_middle(model, x)
    answers = load_elsewhere.answer(model, x)
    model.save(folder / f"{make.__name__}.keras")
    arrays = load_elsewhere.pack("x", x) | load_elsewhere.pack("y", y)
    module = zoo_classes.__name__ if make in WITH_OWN_CLASSES else ""
    np.savez(folder / f"{make.__name__}.npz", module=module, **arrays)
    return Trained(history, weights, answers, load_elsewhere.train(model, x, y)["loss"])


def compare(model, before):
    trainable = {id(weight) for weight in model.trainable_weights}
    return [
        Weight(weight.path, id(weight) in trainable, not np.array_equal(value, to_numpy(weight)))
        for weight, value in zip(model.weights, before, strict=True)
    ]


def cut_in_the_middle(model, x):
    """Set each threshold where it makes labels of both kinds, far from any score."""
    for key, output in load_elsewhere.answer(model, x).items():
        kind, name = key.split("/")
        if kind == "outputs":
            head = find_head(model, name or None)
            scores = np.unique(to_numpy(head.probabilities(output)))
            middle = scores[len(scores) // 4 : -len(scores) // 4]
            widest = np.diff(middle).argmax()
            head.threshold = middle[widest : widest + 2].mean()


def run_python(*arguments, backend, path=None, cwd):
    """Run a fresh Python on `backend`, with `path` in front of what is installed."""
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if path:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), env.get("PYTHONPATH")]))
    if backend == "torch":
        env["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_in_fresh_process(folder, *options, **environment):
    """Run `load_elsewhere` on a folder, and return what it found, by the name of the model."""
    script = Path(load_elsewhere.__file__)
    run_python(script, folder, *options, cwd=folder, **environment)
    suffix = ".loaded.npz"
    return {
        path.name.removesuffix(suffix): dict(np.load(path)) for path in folder.glob(f"*{suffix}")
    }


def to_numpy(x):
    return keras.ops.convert_to_numpy(x)
