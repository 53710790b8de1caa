"""The optimizers of AdamMomentLogger: where Keras keeps their moments, and which are logged."""

import copy

import keras
import numpy as np
import pytest
from muon import needs_muon

from keras_binclf import AdamMomentLogger
from keras_binclf.callbacks.adam_moments import _optimizers

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("float32")
EAGER = {"run_eagerly": True, "jit_compile": False}


def make_model(optimizer):
    keras.utils.clear_session(free_memory=False)
    layers = [keras.layers.Dense(3, "tanh", name="hidden")]
    layers.append(keras.layers.Dense(1, "sigmoid", name="head"))
    model = keras.Sequential([keras.Input((4,)), *layers], name="net")
    model.compile(optimizer, loss="binary_crossentropy", **EAGER)
    return model


def fit(model, logger):
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[logger])


MUON = keras.optimizers.Muon
ADAMS = [cls for cls in (*_optimizers.FAMILIES, keras.optimizers.AdamW) if cls is not MUON]


@pytest.mark.parametrize("cls", ADAMS)
def test_keras_keeps_the_moments_where_they_are_read(cls):
    optimizer = cls(amsgrad=True) if issubclass(cls, keras.optimizers.Adam) else cls()
    variables = [keras.Variable(np.ones(3, "float32")), keras.Variable(np.ones((2, 2), "float32"))]
    optimizer.build(variables)
    optimizer.apply([keras.ops.full(v.shape, 0.5) for v in variables], variables)
    moments = _optimizers.list_moments(optimizer)
    assert [row.weight for row in moments] == variables
    norm = _optimizers.find_family(optimizer).norm
    for row in moments:
        parts = [(row.first, 0.05), (row.second, 0.5 if norm else 0.00025)]
        parts += [(row.maximum, 0.00025)] if row.maximum is not None else []
        for variable, expected in parts:
            value = keras.ops.convert_to_numpy(variable)
            np.testing.assert_allclose(value, np.full(row.weight.shape, expected), rtol=2e-5)
    assert int(keras.ops.convert_to_numpy(_optimizers.get_counter(optimizer))) == 1
    product = _optimizers.get_product(optimizer)
    assert (product is not None) == (cls is keras.optimizers.Nadam)
    if product is not None:
        product = float(keras.ops.convert_to_numpy(product))
        assert product == pytest.approx(0.9 * (1 - 0.5 * 0.96), rel=1e-6)


@needs_muon
def test_keras_keeps_the_moments_of_muon_where_they_are_read():
    """Of the two kernels, one is excluded from orthogonalisation; vectors always are."""
    optimizer = MUON(0.1, adam_beta_1=0.8, adam_beta_2=0.99, exclude_layers=["head"])
    shapes = {"hidden_kernel": (2, 2), "bias": (3,), "head_kernel": (2, 3)}
    variables = [
        keras.Variable(np.ones(shape, "float32"), name=name) for name, shape in shapes.items()
    ]
    optimizer.build(variables)
    optimizer.apply([keras.ops.full(v.shape, 0.5) for v in variables], variables)
    rule = _optimizers.make_rule(optimizer)
    assert (rule.beta_1, rule.beta_2, rule.epsilon) == (0.8, 0.99, 1e-7)
    moments = _optimizers.list_moments(optimizer)
    assert [row.weight for row in moments] == variables[1:]
    assert _optimizers.list_orthogonalised(optimizer) == [variables[0].path]
    for row in moments:
        for variable, expected in ((row.first, 0.2 * 0.5), (row.second, 0.01 * 0.25)):
            value = keras.ops.convert_to_numpy(variable)
            np.testing.assert_allclose(value, np.full(row.weight.shape, expected), rtol=2e-5)


def test_only_the_family_within_a_multi_optimizer_is_watched():
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {".*head.*": keras.optimizers.Adam(0.01)}
        )
    )
    logger = AdamMomentLogger(6)
    fit(make_model(optimizer), logger)
    assert list(logger.history) == ["net/head/kernel", "net/head/bias"]


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Lion", "Adafactor", "ScheduleFreeAdamW"])
def test_optimizer_without_moments_of_adam_fails_before_the_first_step(name):
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"this Keras has no {name}")
    model, logger = make_model(getattr(keras.optimizers, name)(0.1)), AdamMomentLogger()
    before = model.get_weights()
    with pytest.raises(
        TypeError, match=rf"Adam, AdamW, Nadam, Adamax, Lamb or Muon.*optimizer={name}\."
    ):
        fit(model, logger)
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@needs_muon
def test_variables_that_muon_trains_by_adam_are_logged():
    """Its steps of a vector are Adam's, of which the first is the learning rate."""
    logger = AdamMomentLogger(1)
    muon = MUON(0.01, adam_lr_ratio=1, adam_beta_1=0.8, weight_decay=None, exclude_layers=["head"])
    fit(make_model(muon), logger)
    assert list(logger.history) == ["net/hidden/bias", "net/head/kernel", "net/head/bias"]
    history = logger.history["net/head/bias"]
    assert list(history["step"]) == list(range(1, 7))
    m = 0.0
    for i in range(6):
        m = 0.8 * m + 0.2 * history["gradient_mean"][i]
        # The gradient is computed from the moments, in float32.
        assert history["m_mean"][i] == pytest.approx(m, rel=1e-4)
        assert history["m_hat_mean"][i] == pytest.approx(m / (1 - 0.8 ** (i + 1)), rel=1e-4)
    assert abs(history["update_mean"][0]) == pytest.approx(0.01, rel=1e-3)


@needs_muon
def test_orthogonalised_variables_are_named_where_they_are_asked_for():
    match = (
        r"matches a trainable variable \(net/hidden/bias, net/head/bias\)\. Received: "
        r"variables='hidden/kernel'\. Muon orthogonalises the steps of net/hidden/kernel, "
        r"net/head/kernel, .*exclude_layers"
    )
    with pytest.raises(ValueError, match=match):
        fit(make_model(MUON()), AdamMomentLogger(variables="hidden/kernel"))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)], name="net")
    model.compile(MUON(), loss="mse", **EAGER)
    with pytest.raises(ValueError, match=r"a variable that is trained by Adam.*Muon.*net/dense"):
        fit(model, AdamMomentLogger())


# An optimizer that is not the model's


def train_by_hand(adam, counts, every_n_steps, **options):
    """Apply given gradients in a loop of one's own, several in a batch; give them with the rows."""
    variable = keras.Variable(np.ones(5, "float32"), name="weight")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="net")
    model.d_optimizer = adam
    logger = AdamMomentLogger(every_n_steps, **options)
    callbacks = keras.callbacks.CallbackList([logger], model=model)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    rng, gradients = np.random.default_rng(1), []
    for batch, count in enumerate(counts):
        callbacks.on_train_batch_begin(batch)
        for _ in range(count):
            gradients.append(rng.normal(size=5).astype("float32"))
            adam.apply([keras.ops.convert_to_tensor(gradients[-1])], [variable])
        callbacks.on_train_batch_end(batch)
    callbacks.on_epoch_end(0)
    callbacks.on_train_end()
    return logger.history.get(variable.path, {"step": []}), np.array(gradients)


@pytest.mark.parametrize("by_name", [True, False])
def test_given_optimizer_is_logged_with_the_variables_it_was_built_with(by_name):
    optimizer = keras.optimizers.Adam(0.01)
    given = "d_optimizer" if by_name else optimizer
    history, gradients = train_by_hand(optimizer, [1] * 6, 2, optimizer=given)
    assert list(history["step"]) == [2, 4, 6]
    norms = np.linalg.norm(gradients[1::2], axis=1)
    np.testing.assert_allclose(history["gradient_norm"], norms, rtol=1e-5)


@pytest.mark.parametrize(
    ("counts", "every_n_steps", "expected"),
    [
        ([3] * 4, 5, [6, 12]),
        ([0, 1, 0, 1, 0, 1], 1, [1, 2, 3]),
        ([3] * 4, lambda step: step == 8, [9]),
        ([2, 2, 2], lambda step: step == 99, []),
    ],
    ids=["several", "every_second_batch", "function", "none"],
)
def test_batches_of_any_number_of_steps(counts, every_n_steps, expected):
    optimizer = keras.optimizers.Adam(0.01)
    history, gradients = train_by_hand(optimizer, counts, every_n_steps, optimizer="d_optimizer")
    assert list(history["step"]) == expected
    m = np.zeros(5)
    for step, gradient in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * gradient
        if step in expected:
            row = expected.index(step)
            assert history["m_norm"][row] == pytest.approx(np.linalg.norm(m), rel=1e-5)


class Adversarial(keras.Model):
    """A discriminator that is trained twice in a batch, and a generator once."""

    def __init__(self):
        super().__init__(name="gan")
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)], name="g")
        self.discriminator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="d")
        self.built = True

    def compile(self, d_optimizer, g_optimizer):
        super().compile(loss="mse", **EAGER)
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def call(self, inputs):
        return self.discriminator(inputs)

    def _step(self, optimizer, variables, compute):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = compute()
            gradients = tape.gradient(loss, variables)
        else:
            self.zero_grad()
            compute().backward()
            gradients = [variable.value.grad for variable in variables]
        optimizer.apply(gradients, variables)

    def train_step(self, data):
        real = keras.utils.unpack_x_y_sample_weight(data)[0]
        noise = keras.ops.ones((len(real), 2))

        def judge():
            fake = self.discriminator(self.generator(noise))
            return keras.ops.mean((self.discriminator(real) - 1) ** 2) + keras.ops.mean(fake**2)

        def fool():
            return keras.ops.mean((self.discriminator(self.generator(noise)) - 1) ** 2)

        for _ in range(2):
            self._step(self.d_optimizer, self.discriminator.trainable_variables, judge)
        self._step(self.g_optimizer, self.generator.trainable_variables, fool)
        return {"loss": 0.0}


@pytest.mark.skipif(BACKEND == "jax", reason="JAX's trainer carries one optimizer")
def test_both_optimizers_of_a_gan_have_a_logger():
    keras.utils.set_random_seed(0)
    model = Adversarial()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.AdamW(0.01))
    loggers = [AdamMomentLogger(4, optimizer=name) for name in ("d_optimizer", "g_optimizer")]
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=loggers)
    for logger, name, steps in zip(
        loggers, "dg", ([4, 8, 12, 16, 20, 24], [4, 8, 12]), strict=True
    ):
        part = {"d": model.discriminator, "g": model.generator}[name]
        assert list(logger.history) == [variable.path for variable in part.trainable_variables]
        columns = logger.history[part.trainable_variables[0].path]
        assert list(columns["step"]) == steps
        optimizer = getattr(model, f"{name}_optimizer")
        m = keras.ops.convert_to_numpy(optimizer._momentums[0])
        assert columns["m_norm"][-1] == pytest.approx(np.linalg.norm(m), rel=1e-5)


def test_attribute_without_an_optimizer_is_an_error():
    model = make_model("adam")
    with pytest.raises(ValueError, match=r"attribute of 'net' that holds an optimizer.*'d_opt'"):
        fit(model, AdamMomentLogger(optimizer="d_opt"))
    with pytest.raises(TypeError, match=r"`optimizer` of AdamMomentLogger must be None, an opti"):
        AdamMomentLogger(optimizer=3)


def test_logger_with_an_optimizer_object_has_no_config_and_no_copy():
    logger = AdamMomentLogger(optimizer=keras.optimizers.Adam())
    for call in (logger.get_config, lambda: copy.deepcopy(logger)):
        with pytest.raises(ValueError, match=r"name or None for a config.*optimizer=Adam\. Give"):
            call()
