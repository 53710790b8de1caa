"""Every logged quantity beside Adam in NumPy, over 50 steps of a real `fit`.

The same training runs twice. A recorder notes the weights before each batch in the first; from
these, NumPy computes gradients, moments and updates in float64. The logger watches the second,
alone, so that on JAX it has to read the trainer's state.
"""

import functools

import keras
import numpy as np
import pytest
import reference

from keras_binclf import AdamMomentLogger
from keras_binclf.callbacks.adam_moments._quantities import DEFAULT, list_columns

BACKEND = keras.backend.backend()
BATCH, BATCHES, EPOCHS = 8, 5, 10
RNG = np.random.default_rng(3)
X = RNG.normal(size=(BATCH * BATCHES, 4)).astype("float32")
Y = (X[:, 0] + 0.5 * RNG.normal(size=len(X)) > 0).astype("float32")
# float32 has 6e-8. The largest errors that were seen are printed after the tests.
TOLERANCE = 1e-5
STATISTICS = {
    "norm": lambda a: np.linalg.norm(a),
    "mean": lambda a: np.mean(a),
    "rms": lambda a: np.sqrt(np.mean(a**2)),
    "max": lambda a: np.max(np.abs(a)),
}


def cosine():
    return keras.optimizers.schedules.CosineDecay(0.02, 40, alpha=0.1)


def scaled(**options):
    return keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.02, **options), initial_scale=2.0**10, dynamic_growth_steps=3
    )


def two_optimizers():
    parts = {".*/first/.*": keras.optimizers.Adam(0.01, beta_1=0.8)}
    default = keras.optimizers.AdamW(0.02, weight_decay=0.1)
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, parts))


needs_multi = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)
OPTIMIZERS = keras.optimizers
# Keras's Nadam rounds 1 - beta_2 to float32, which is 1.3e-5 of it, but on PyTorch.
NADAM_SHARE = {} if BACKEND == "torch" else {"share": float(1 - np.float32(0.999))}
# What makes the optimizer, what the oracle needs to know of it, and what is done to the gradients.
CASES = {
    "Adam": (lambda: OPTIMIZERS.Adam(0.02), {}),
    "Adam, XLA": (lambda: OPTIMIZERS.Adam(0.02), {"jit_compile": BACKEND != "torch"}),
    "Adam, betas": (
        lambda: OPTIMIZERS.Adam(0.02, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
    ),
    "Adam, beta_1=0": (lambda: OPTIMIZERS.Adam(0.02, beta_1=0.0), {"beta_1": 0.0}),
    "Adam, schedule": (lambda: OPTIMIZERS.Adam(cosine()), {"learning_rate": cosine}),
    "Adam, clipnorm": (lambda: OPTIMIZERS.Adam(0.02, clipnorm=0.05), {"clip": "norm"}),
    "Adam, clipvalue": (lambda: OPTIMIZERS.Adam(0.02, clipvalue=0.02), {"clip": "value"}),
    "Adam, global_clipnorm": (
        lambda: OPTIMIZERS.Adam(0.02, global_clipnorm=0.05),
        {"clip": "global"},
    ),
    "Adam, accumulation": (
        lambda: OPTIMIZERS.Adam(0.02, gradient_accumulation_steps=3),
        {"accumulation": 3},
    ),
    "Adam, EMA": (lambda: OPTIMIZERS.Adam(0.02, use_ema=True, ema_momentum=0.9), {}),
    "Adam, frozen layer": (lambda: OPTIMIZERS.Adam(0.02), {"frozen": True}),
    "AMSGrad": (lambda: OPTIMIZERS.Adam(0.02, amsgrad=True), {"kind": "amsgrad"}),
    "AdamW": (lambda: OPTIMIZERS.AdamW(0.02, weight_decay=0.1), {"decay": 0.1}),
    "Nadam": (lambda: OPTIMIZERS.Nadam(0.02), {"kind": "nadam"} | NADAM_SHARE),
    "Adamax": (lambda: OPTIMIZERS.Adamax(0.02), {"kind": "adamax"}),
    "Lamb": (lambda: OPTIMIZERS.Lamb(0.02), {"kind": "lamb"}),
    "LossScale": (scaled, {"skipped": True}),
    "LossScale, accumulation": (
        lambda: scaled(gradient_accumulation_steps=2),
        {"skipped": True, "accumulation": 2},
    ),
    "MultiOptimizer": (two_optimizers, {"parts": True}),
}
PARTS = [
    {"learning_rate": 0.01, "beta_1": 0.8},
    {"learning_rate": 0.01, "beta_1": 0.8},
    {"decay": 0.1},
    {"decay": 0.1},
]


class Recorder(keras.callbacks.Callback):
    """Notes all weights before and after each batch."""

    def __init__(self):
        super().__init__()
        self.before, self.after = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(self.model.get_weights())

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self.model.get_weights())


def fit(make_optimizer, callback, frozen=False, skipped=False, jit_compile=False):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, "tanh", name="first"), keras.layers.Dense(1, name="last")]
    layers[0].trainable = not frozen
    model = keras.Sequential([keras.Input((4,)), *layers])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    # XLA takes seconds to compile: on TensorFlow one case has it.
    model.compile(make_optimizer(), loss=loss, jit_compile=BACKEND == "jax" or jit_compile)
    x = X.copy()
    if skipped:
        x[2 * BATCH : 3 * BATCH] = np.inf  # the third batch of each epoch has no gradient
    model.fit(
        *(x, Y), batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[callback]
    )
    return model, x


def clip(gradients, how):
    if how == "value":
        return [np.clip(g, -0.02, 0.02) for g in gradients]
    norms = np.array([np.linalg.norm(g) for g in gradients])
    if how == "global":
        norms[:] = np.linalg.norm(norms)
    if how:
        return [g * min(1.0, 0.05 / norm) for g, norm in zip(gradients, norms, strict=True)]
    return gradients


def simulate(
    recorder, x, kind="adam", learning_rate=None, accumulation=1, clip_by=None, frozen=0, **options
):
    """Give the tensors of each step, a dict for each variable but the first `frozen` ones."""
    parts = PARTS if options.pop("parts", False) else [options] * 4
    rates = [part.pop("learning_rate", 0.02) for part in map(dict, parts)]
    adams = [
        reference.Adam(kind, **{k: v for k, v in part.items() if k != "learning_rate"})
        for part in parts
    ]
    waiting = []
    for i, (before, after) in enumerate(zip(recorder.before, recorder.after, strict=True)):
        rows = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
        with np.errstate(invalid="ignore"):
            gradients, terms = reference.net_gradients(before, x[rows], Y[rows])
        if not all(np.isfinite(g).all() for g in gradients):
            continue
        waiting.append(gradients)
        if len(waiting) < accumulation:
            continue
        gradients = clip([np.mean(group, axis=0) for group in zip(*waiting, strict=True)], clip_by)
        waiting = []
        yield [
            simulate_one(
                adam, g, size, old, new, learning_rate()(adam.t) if learning_rate else rate
            )
            for adam, g, size, old, new, rate in list(
                zip(adams, gradients, terms, before, after, rates, strict=True)
            )[frozen:]
        ]


def simulate_one(adam, gradient, terms, old, new, learning_rate):
    old, new = old.astype("float64"), new.astype("float64")
    names = ("m", "v", "m_hat", "v_hat", "update")
    m_before = adam.m
    tensors = dict(zip(names, adam.step(old, gradient, float(learning_rate)), strict=True))
    # Keras rounds 1 - beta_2^t to float32, of which it loses three digits in the first steps, and
    # the weights. What it did then is the update; that it is Adam's is as exact as that.
    slack = 3e-5 * np.abs(tensors["update"]).max() + 6e-8 * np.abs(new).max()
    np.testing.assert_allclose(new - old, tensors["update"], rtol=1e-4, atol=slack)
    tensors["update"] = new - old
    # What precision can be had: Keras adds up terms of a size in float32, and the logger's gradient
    # is the difference of two moments.
    unit = terms / 50 + (np.abs(tensors["m"]) + np.abs(m_before)) / (1 - adam.beta_1) / 10
    return tensors | {"gradient": gradient, "weight": new, "unit": unit, "epsilon": adam.epsilon}


def expected_columns(tensors):
    """Give name, value and the size to which an error is relative."""
    for name in ("gradient", "m", "v", "m_hat", "v_hat", "update"):
        for statistic, function in STATISTICS.items():
            value = function(tensors[name])
            # Where positive and negative entries cancel, the mean is as exact as they are.
            scale = STATISTICS["rms"](tensors[name]) if statistic == "mean" else value
            if name in ("gradient", "m", "m_hat"):
                scale = max(scale, STATISTICS[statistic](tensors["unit"]))
            yield f"{name}_{statistic}", value, scale
    ratio = STATISTICS["norm"](tensors["update"]) / STATISTICS["norm"](tensors["weight"])
    yield "update_ratio", ratio, ratio
    squares = tensors["gradient"] ** 2 / np.maximum(tensors["v_hat"], tensors["epsilon"] ** 2)
    yield "rms_ratio", np.sqrt(np.mean(squares)), 1.0
    share = np.mean(np.sqrt(tensors["v_hat"]) < tensors["epsilon"])
    yield "epsilon_share", share, 1.0


@functools.cache
def run(name):
    make_optimizer, facts = CASES[name]
    facts = dict(facts)
    options = {key: facts.pop(key) for key in ("frozen", "skipped", "jit_compile") if key in facts}
    if "clip" in facts:
        facts["clip_by"] = facts.pop("clip")
    recorder, logger = Recorder(), AdamMomentLogger(1)
    model, x = fit(make_optimizer, recorder, **options)
    fit(make_optimizer, logger, **options)
    frozen = 2 if options.get("frozen") else 0
    return model, logger, list(simulate(recorder, x, frozen=frozen, **facts))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=needs_multi if n == "MultiOptimizer" else ()) for n in CASES]
)
def test_logged_columns_are_those_of_the_papers(name, record_property):
    model, logger, steps = run(name)
    trainable = [variable.path for variable in model.trainable_variables]
    assert list(logger.history) == trainable
    worst = 0.0
    for path in trainable:
        history = logger.history[path]
        assert list(history["step"]) == list(range(1, len(steps) + 1))
        for i, step in enumerate(steps):
            tensors = step[trainable.index(path)]
            for column, value, scale in expected_columns(tensors):
                worst = max(worst, abs(history[column][i] - value) / scale)
                assert history[column][i] == pytest.approx(value, abs=TOLERANCE * scale), column
    record_property("adam_oracle", (name, float(worst)))
    assert set(history) == {"run", "epoch", "step", *list_columns(DEFAULT)}


def test_oracle_runs_at_least_as_many_steps_as_it_claims():
    counts = {name: len(run(name)[2]) for name in ("Adam", "Adam, accumulation", "LossScale")}
    assert counts == {"Adam": 50, "Adam, accumulation": 16, "LossScale": 40}
