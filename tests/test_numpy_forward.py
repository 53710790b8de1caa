"""NumPy in place of XLA, operation by operation and for whole models. XLA is the oracle."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("Only JAX's CPU hands a computation to another thread.", allow_module_level=True)

import jax
from jax import lax
from jax import numpy as jnp

from keras_binclf import BinaryHead, binary_classifier
from keras_binclf.saving import Predictor, _compiled_model, _numpy_operations
from keras_binclf.serving._numpy_forward import NumpyForward
from keras_binclf.serving._numpy_operations import UnsupportedError

RNG = np.random.default_rng(0)
FINITE = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 88.0, 100.0, -87.0, 2**31, -(2**31), 1e30, -1e30, 3e9]
EDGES = np.array([*FINITE, -3e9, np.inf, -np.inf, np.nan], "float32")
OTHERS = np.roll(EDGES, 5)
WHOLE = np.array([-(2**31), -3, 0, 1, 7, 2**31 - 1], "int32")
FLAGS = np.array([True, False, True, False])
MATRIX = RNG.normal(size=(3, 4)).astype("float32")
CUBE = RNG.normal(size=(2, 3, 4)).astype("float32")

OF_FLOATS = [
    *[lax.abs, lax.neg, lax.square, lax.erf, lax.erfc, lax.expm1, lax.logistic],
    *[lax.rsqrt, lax.tanh],
    lambda x: lax.integer_pow(x, 3),
    lambda x: lax.convert_element_type(x, "int32"),
    jnp.copy,
]
OF_TWO_FLOATS = [
    *[lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge],
    lambda x, _: x / EDGES,
    lambda x, _: x * jnp.sqrt(np.array(2.0, "float32")),
]
CASES = [
    *[(function, EDGES) for function in OF_FLOATS],
    *[(function, EDGES, OTHERS) for function in OF_TWO_FLOATS],
    *[(function, WHOLE) for function in (lax.abs, lax.neg)],
    *[(function, WHOLE, WHOLE[::-1]) for function in (lax.add, lax.sub, lax.mul, lax.max, lax.lt)],
    *[(function, FLAGS, ~FLAGS) for function in (lax.bitwise_or, lax.bitwise_xor)],
    (lax.bitwise_and, FLAGS, np.array([True, True, False, False])),
    (lax.bitwise_not, FLAGS),
    (lambda x: lax.convert_element_type(x, "float32"), WHOLE),
    (lambda x: lax.convert_element_type(x, "float32"), FLAGS),
    (lambda x: lax.clamp(-1.0, x, 2.5), EDGES),
    (lax.select, FLAGS, MATRIX[0], MATRIX[1]),
    (lambda x: lax.broadcast_in_dim(x, (2, 4, 3), (1,)), MATRIX[0]),
    (lambda x: lax.broadcast_in_dim(x, (1, 4), (1,)), MATRIX[0]),
    (lambda x: lax.reshape(x, (2, 6)), MATRIX),
    (lambda x: lax.expand_dims(x, (0, 2)), MATRIX),
    (lambda x: lax.squeeze(x, (0,)), MATRIX[:1]),
    (lambda x: lax.transpose(x, (2, 0, 1)), CUBE),
    (lambda x: lax.slice(x, (0, 1), (3, 4), (2, 1)), MATRIX),
    (lambda x: lax.slice(x, (0, 1), (3, 2)), MATRIX),
    (lambda x, y: lax.concatenate([x, y, x], 1), MATRIX, MATRIX[:, :2]),
    (lambda x: jnp.max(x, (0, 2)), CUBE),
    (lambda x: jnp.min(x, 1), CUBE),
    (lambda x: jnp.sum(x), CUBE),
    (lambda x, y: x @ y, MATRIX, MATRIX.T),
    (lambda x, y: x @ y, CUBE, MATRIX.T),
    (lambda x, y: jnp.tensordot(x, y, ((1, 2), (0, 1))), CUBE, MATRIX),
    (lambda x, y: lax.dot_general(x, y, (((0,), (1,)), ((), ()))), MATRIX, CUBE),
    (lambda x, i: jnp.take(x, i, axis=0), MATRIX, np.array([[0, 2], [-1, 3], [-4, 99]], "int32")),
    (lambda x, i: jnp.take(x, i, axis=0), CUBE, np.array([1, 0, 2], "int32")),
]


def record(function, *arrays):
    return NumpyForward(jax.make_jaxpr(function)(*arrays), [], list(arrays))


def list_names(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from list_names(value.jaxpr)


def test_no_operation_is_left_untested():
    tables = _numpy_operations.OF_NUMBERS, _numpy_operations.OF_FLOATS, _numpy_operations.OF_BOOLS
    tables += _numpy_operations.OF_WEIGHTS, _numpy_operations.MAKERS
    known = {name for table in tables for name in table}
    tested = {name for f, *arrays in CASES for name in list_names(jax.make_jaxpr(f)(*arrays).jaxpr)}
    of_other_versions = {"add_any", "copy_p", "expand_dims", "square"}
    assert known - tested <= of_other_versions


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_operation_is_that_of_xla(case):
    function, *arrays = case
    copies = [array.copy() for array in arrays]
    expected = np.asarray(jax.jit(function)(*arrays))
    result = record(function, *arrays)([], arrays)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    # XLA has polynomials of its own, and makes 0 of what is smaller than a normal float32.
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-37)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("function", "arrays", "message"),
    [
        (lax.div, (WHOLE, WHOLE), "operation div"),
        (lax.div, (MATRIX, MATRIX), "operation div"),
        (lambda x: jnp.sqrt(x), (MATRIX,), "operation sqrt"),
        (lambda x: jnp.exp(x), (MATRIX,), "operation exp"),
        (lambda x: jnp.floor(x), (MATRIX,), "operation floor"),
        (lambda x: lax.integer_pow(x, 3), (WHOLE,), "power 3 of int32"),
        (lambda x: lax.integer_pow(x, -2), (MATRIX,), "power -2 of float32"),
        (lax.bitwise_and, (WHOLE, WHOLE), "operation and"),
        (
            lambda x: lax.convert_element_type(x, "uint8"),
            (MATRIX,),
            "float32 as uint8: rows, as they",
        ),
        (lambda x: (x * 2).astype("int32"), (MATRIX,), "float32 as int32: computed from rows"),
        (lambda x: jnp.max(x[:, :0], 1, initial=0), (MATRIX,), r"arrays of float32\[3,0\]"),
        (lambda x, i: jnp.take(x, i), (MATRIX[0], np.int32(2)), "gather of another kind"),
        (lambda x: (jax.debug.callback(print, 0), x)[1], (MATRIX,), "0 results of debug_callback"),
        (lambda x: x.astype("bfloat16") * 2, (MATRIX,), "bfloat16"),
        (lambda x, y: x @ y, (WHOLE, WHOLE), "product of batches, or of integers"),
        (lambda x, y: jnp.einsum("nij,nik->njk", x, y), (CUBE, CUBE), "product of batches"),
        (lambda x: lax.reshape(x, (12,), (1, 0)), (MATRIX,), r"reshape in the order \(1, 0\)"),
        (lambda x: lax.cumsum(x, 1), (MATRIX,), "operation cumsum"),
        (lambda x: lax.top_k(x, 2)[0], (MATRIX,), "2 results of top_k"),
        (lambda x, i: x[i, i], (MATRIX, WHOLE[2:4]), "gather of another kind"),
        (lambda x, i: jnp.take(x, i, axis=0, mode="clip"), (MATRIX, WHOLE), "gather of another"),
        (lambda x, i: jnp.take(x, i, axis=1), (MATRIX, WHOLE), "gather of another kind"),
        (lambda i, *x: lax.select_n(i, *x), (np.int32(1), *CUBE, CUBE[0]), "more than two"),
    ],
)
def test_what_may_differ_is_left_to_jax(function, arrays, message):
    with pytest.raises(UnsupportedError, match=message):
        record(function, *arrays)


def test_weights_that_take_long_or_much_are_left_to_jax():
    rows = np.zeros((1, 2), "float32")
    for function, weights, message in (
        (lambda w, x: x + w[0, 0] * w.size, np.zeros((1001, 1000), "float32"), "bytes of weights"),
        (lambda w, x: x + (w @ w.T)[0, 0], np.zeros((900, 900), "float32"), "of weights 7"),
    ):
        closed = jax.make_jaxpr(function)(weights, rows)
        with pytest.raises(UnsupportedError, match=message):
            NumpyForward(closed, [weights], [rows])


class Watched(NumpyForward):
    """Counts its calls, the first of which only compares."""

    calls = 0

    def __call__(self, values, arrays):
        type(self).calls += 1
        return super().__call__(values, arrays)


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(_compiled_model, "NumpyForward", Watched)
    monkeypatch.setattr(Watched, "calls", 0)
    return Watched


class Printing(keras.layers.Layer):
    """Has an operation without a result."""

    def call(self, inputs):
        jax.debug.callback(lambda: None)
        return inputs


class Masked(keras.layers.Layer):
    """Multiplies by an array that is no weight."""

    def __init__(self):
        super().__init__()
        self.mask = np.ones(3, "float32")

    def call(self, inputs):
        return inputs * self.mask


def test_what_cannot_be_read_is_left_to_jax():
    model = keras.Sequential([keras.Input((3,)), Printing(), BinaryHead()])
    x = RNG.normal(size=(1, 3)).astype("float32")
    np.testing.assert_allclose(Predictor(model)(x), model.predict(x, verbose=0), rtol=1e-6)


def test_record_of_an_unknown_kind_is_left_to_jax(monkeypatch):
    def fail(*arguments):
        raise KeyError("dimension_numbers")

    monkeypatch.setattr(_compiled_model, "NumpyForward", fail)
    predictor = Predictor(binary_classifier(4, prior=0.3, metrics=None))
    np.testing.assert_allclose(predictor(np.zeros(4)), 0.3, rtol=1e-6)


def test_arrays_of_a_layer_are_those_that_were_recorded(watched):
    """As `jax.jit` does."""
    layer = Masked()
    predictor = Predictor(keras.Sequential([keras.Input((3,)), layer, BinaryHead()]))
    x = RNG.normal(size=(1, 3)).astype("float32")
    before = predictor(x)
    layer.mask[:] = 5
    np.testing.assert_array_equal(predictor(x), before)
    assert watched.calls == 3


def shake(model):
    values = [np.abs(w + RNG.normal(0, 0.2, w.shape)) for w in model.get_weights()]
    model.set_weights([v if v.ndim else np.full((), 0.5) for v in values])
    return model


@pytest.mark.parametrize(
    "activation", ["relu", "gelu", "silu", "tanh", "selu", "elu", "leaky_relu"]
)
@pytest.mark.parametrize("normalization", [None, "batch", "layer", "rms"])
def test_classifiers_are_computed_by_numpy(watched, activation, normalization):
    options = {"normalization": normalization, "residual": True, "dropout_rate": 0.1}
    options |= {"scaler": keras.layers.Normalization(mean=[3.0] * 9, variance=[4.0] * 9)}
    model = shake(binary_classifier(9, activation=activation, metrics=None, **options))
    predictor = Predictor(model, batch_sizes=[1, 512])
    x = RNG.normal(3, 2, size=(100, 9)).astype("float32")
    expected = model.predict(x, verbose=0)
    assert np.ptp(expected) > 0.1
    # Logits of some tens, in float32.
    close = {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose([[predictor(row)] for row in x], expected, **close)
    assert watched.calls == 101
    np.testing.assert_allclose(predictor(x), expected, **close)
    assert watched.calls == 101
    assert predictor.num_compilations == 2


def test_large_model_is_left_to_jax(watched):
    model = shake(binary_classifier(4, hidden_units=(1024, 1024), metrics=None))
    x = RNG.normal(size=(1, 4)).astype("float32")
    np.testing.assert_allclose(Predictor(model)(x), model.predict(x, verbose=0), atol=1e-6)
    assert watched.calls == 0


def test_other_numbers_than_those_of_jax_are_not_taken(monkeypatch):
    monkeypatch.setattr(NumpyForward, "__call__", lambda self, values, arrays: np.ones((1, 1)))
    predictor = Predictor(binary_classifier(4, prior=0.3, metrics=None))
    for _ in range(2):
        np.testing.assert_allclose(predictor(np.zeros(4)), 0.3, rtol=1e-6)


def test_what_depends_on_weights_alone_follows_them(watched):
    scaler = keras.layers.Normalization(mean=[0.0, 0.0], variance=[1.0, 1.0])
    model = binary_classifier(2, hidden_units=None, scaler=scaler, metrics=None)
    predictor = Predictor(model)
    row = np.array([2.0, 5.0], "float32")
    kernel, bias = model.layers[-1].kernel, model.layers[-1].bias
    for weights, offset in (([1.0, 0.0], 0.0), ([0.0, -1.0], 0.25), ([0.5, 0.5], -3.0)):
        kernel.assign(np.reshape(weights, (2, 1)))
        bias.assign([offset])
        expected = 1 / (1 + np.exp(-(row @ weights + offset)))
        np.testing.assert_allclose(predictor(row), expected, rtol=1e-6)
    assert watched.calls == 4
