"""NumericalEmbedding: against NumPy in float64, and against rtdl_num_embeddings."""

import keras
import numpy as np
import pandas as pd
import pytest
from contract import BACKEND, to_numpy
from test_feature_scaler import FORMS

from keras_binclf import NumericalEmbedding


def adapt(x, *arguments, **options):
    embedding = NumericalEmbedding(*arguments, **options)
    embedding.adapt(x)
    return embedding


def randomize(layer, seed=1):
    """Give weights that start as zeros other values."""
    rng = np.random.default_rng(seed)
    layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    return layer


def double(*weights):
    return [to_numpy(weight).astype("float64") for weight in weights]


def encode_piecewise(x, edges):
    """Components of one number, as the paper's equation 1 defines them, for one feature.

    The first and the last are lines that go on: Gorishniy et al. 2022, section 3.2.
    """
    components = []
    for k in range(len(edges) - 1):
        share = (x - edges[k]) / (edges[k + 1] - edges[k])
        if k > 0:
            share = np.maximum(share, 0)
        if k < len(edges) - 2:
            share = np.minimum(share, 1)
        components.append(share)
    return np.stack(components, -1)


def embed_piecewise(x, bins, edges, kernel, lines, bias):
    """`x · w + b + encoding · kernel` of each feature, of shape `(rows, features, dim)`."""
    outputs = x[:, :, None] * lines + bias
    for i, count in enumerate(bins):
        outputs[:, i] += encode_piecewise(x[:, i], edges[i, : count + 1]) @ kernel[i, :count]
    return outputs


@pytest.fixture(scope="module")
def x():
    x = np.random.default_rng(0).normal(size=(400, 3)).astype("float32")
    x[:, 1] = np.random.default_rng(1).integers(0, 5, 400)
    return x


@pytest.fixture(scope="module")
def wide(x):
    """Rows beyond the edges, too."""
    return np.concatenate([x, 3 * x])


def test_piecewise_linear_is_that_of_numpy(x, wide):
    layer = randomize(adapt(x, 6))
    assert layer.feature_bins == (32, 4, 32)
    expected = embed_piecewise(
        wide.astype("float64"),
        layer.feature_bins,
        *double(layer.edges, layer.kernel, layer.linear_kernel, layer.bias),
    )
    outputs = to_numpy(layer(wide)).reshape(-1, 3, 6)
    # Sums of 32 float32 terms, which grow with the distance from the edges.
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_edges_are_quantiles_that_differ(x):
    layer = adapt(x, num_bins=8)
    edges = to_numpy(layer.edges)
    levels = np.linspace(0, 1, 9)
    np.testing.assert_allclose(edges[0], np.quantile(x[:, 0].astype("float64"), levels), rtol=1e-6)
    assert layer.feature_bins == (8, 4, 8)
    assert edges[1].tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4]


def test_piecewise_linear_starts_as_straight_lines(x, wide):
    layer = adapt(x, 6)
    _, lines, bias = double(layer.kernel, layer.linear_kernel, layer.bias)
    expected = wide[:, :, None].astype("float64") * lines + bias
    np.testing.assert_allclose(to_numpy(layer(wide)).reshape(-1, 3, 6), expected, atol=1e-6)
    assert np.abs(lines).max() <= 1
    assert np.abs(bias).max() <= 1


def test_periodic_is_that_of_numpy(x, wide):
    """PBLD: `[cos(2π f x + phase) · kernel + b, x]` (Holzmüller et al. 2024, section 3)."""
    layer = adapt(x, 6, "periodic")
    weights = double(layer.frequencies, layer.phases, layer.kernel, layer.bias)
    frequencies, phases, kernel, bias = weights
    number = wide.astype("float64")[:, :, None]
    waves = np.cos(2 * np.pi * number * frequencies + phases)
    parts = [np.einsum("bfk,fkd->bfd", waves, kernel) + bias, number]
    expected = np.concatenate(parts, axis=-1)
    outputs = to_numpy(layer(wide)).reshape(-1, 3, 6)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=2e-6)
    assert 0.05 < frequencies.std() < 0.2
    assert np.abs(phases).max() <= np.pi
    assert np.abs(kernel).max() <= 16**-0.5


@pytest.mark.parametrize("method", ["piecewise_linear", "periodic"])
def test_features_of_two_values_pass_through_behind_the_others(x, method):
    rows = np.concatenate([x[:, :1] > 0, x, np.full((400, 1), 3)], axis=1).astype("float32")
    layer = adapt(rows, 4, method)
    assert [count > 0 for count in layer.feature_bins] == [False, True, True, True, False]
    outputs = to_numpy(layer(rows))
    assert outputs.shape == (400, layer.num_outputs) == (400, 3 * 4 + 2)
    np.testing.assert_array_equal(outputs[:, 12:], rows[:, [0, 4]])
    narrow = adapt(x, 4, method)
    narrow.set_weights(layer.get_weights())
    np.testing.assert_array_equal(outputs[:, :12], to_numpy(narrow(x)))


def test_nothing_to_embed_is_the_numbers_themselves(x):
    rows = (x > 0).astype("float32")
    layer = adapt(rows, 4)
    assert not layer.weights
    np.testing.assert_array_equal(to_numpy(layer(rows)), rows)


def test_sequences_are_embedded_like_their_rows(x):
    layer = randomize(adapt(x, 4))
    outputs = to_numpy(layer(x.reshape(4, 10, 10, 3)))
    assert outputs.shape == (4, 10, 10, 12)
    np.testing.assert_allclose(outputs.reshape(400, 12), to_numpy(layer(x)), atol=1e-6)
    again = adapt(x.reshape(40, 10, 3), 4)
    np.testing.assert_array_equal(to_numpy(again.edges), to_numpy(layer.edges))


@pytest.mark.parametrize("version", ["B", None])
def test_outputs_are_those_of_the_authors_package(x, wide, version):
    """rtdl_num_embeddings 0.0.12, with our weights in it: `noxfile.py` installs it."""
    package = pytest.importorskip("rtdl_num_embeddings")
    torch = pytest.importorskip("torch")
    layer = randomize(adapt(x, 6)) if version else adapt(x, 6, "periodic")
    t = torch.tensor(wide)
    with torch.no_grad():
        if version:
            bins = [
                torch.tensor(to_numpy(layer.edges)[i, : count + 1])
                for i, count in enumerate(layer.feature_bins)
            ]
            theirs = package.PiecewiseLinearEmbeddings(bins, 6, activation=False, version="B")
            kernel = np.zeros(theirs.linear.weight.shape, "float32")
            for i, count in enumerate(layer.feature_bins):
                # The last bin of a feature with fewer bins stands at the end there.
                kernel[i, : count - 1] = to_numpy(layer.kernel)[i, : count - 1]
                kernel[i, -1] = to_numpy(layer.kernel)[i, count - 1]
            theirs.linear.weight.copy_(torch.tensor(kernel))
            theirs.linear0.weight.copy_(torch.tensor(to_numpy(layer.linear_kernel)))
            theirs.linear0.bias.copy_(torch.tensor(to_numpy(layer.bias)))
            expected = theirs(t).numpy()
        else:
            # Its periodic part has sine and cosine in place of a phase: cos(a + p) is their sum.
            waves = package._Periodic(3, 16, 0.1)
            waves.weight.copy_(torch.tensor(to_numpy(layer.frequencies)))
            cosine, sine = waves(t).numpy().reshape(-1, 3, 2, 16).transpose(2, 0, 1, 3)
            phases, kernel, bias = double(layer.phases, layer.kernel, layer.bias)
            turned = cosine * np.cos(phases) - sine * np.sin(phases)
            embedded = np.einsum("bfk,fkd->bfd", turned, kernel) + bias
            expected = np.concatenate([embedded, wide[:, :, None]], axis=-1)
    outputs = to_numpy(layer(wide)).reshape(-1, 3, 6)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


# ---- data


@pytest.mark.parametrize("form", FORMS)
def test_the_same_is_learned_from_data_of_every_form(form):
    x = np.random.default_rng(2).normal(size=(500, 2)).astype("float32")
    expected, layer = adapt(x), adapt(FORMS[form](x))
    assert layer.feature_bins == expected.feature_bins
    np.testing.assert_array_equal(to_numpy(layer.edges), to_numpy(expected.edges))


def test_edges_that_are_too_close_to_divide_by_are_one():
    """A distance below 3e-39 has no reciprocal in float32."""
    x = np.concatenate([np.zeros(50), np.full(50, 1e-40), np.linspace(0, 1, 100)])
    layer = randomize(adapt(x[:, None], 4, num_bins=8))
    assert np.isfinite(to_numpy(layer(x[:, None].astype("float32")))).all()
    tiny = np.linspace(0, 1e-39, 100)[:, None]
    passing = adapt(tiny, 4)
    assert np.isfinite(to_numpy(passing(tiny.astype("float32")))).all()


def test_adapting_again_needs_the_same_shapes(x):
    layer = adapt(x)
    layer.adapt(2 * x)
    np.testing.assert_allclose(to_numpy(layer.edges)[:, -1], 2 * x.max(axis=0))
    with pytest.raises(ValueError, match=r"with \[32, 4, 32\] bins. Received: data with \[0, 0, 0"):
        layer.adapt(x > 0)


def test_learned_edges_are_missing_until_they_are_loaded(x):
    clone = NumericalEmbedding.from_config(adapt(x).get_config())
    clone.build((None, 3))
    assert not clone.is_adapted
    assert np.isnan(to_numpy(clone(x))).all()


BAD = {
    "gaps": ([[1.0], [np.nan]], ValueError, r"no gaps. Received: NaN in column 0, row 1. Put"),
    "no_rows": (np.zeros((0, 3)), ValueError, "Received: no rows"),
    "vector": (np.zeros(3), ValueError, r"Received: an array of shape \(3,\)"),
    "words": (pd.DataFrame({"a": ["x"]}), TypeError, "`keras_binclf.TabularEncoder` takes tables"),
    "width": (
        [[-3.4e38]] * 50 + [[3.3e38]] * 50 + [[3.4e38]],
        ValueError,
        "bins of column 0 .* fl",
    ),
    "infinite": ([[1.0], [np.inf]], ValueError, r"finite in float32. Received: inf in column 0, r"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused(name):
    data, error, message = BAD[name]
    with pytest.raises(error, match=message):
        NumericalEmbedding().adapt(data)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`method` of NumericalEmbedding must be one of"):
        NumericalEmbedding(method="linear")
    with pytest.raises(ValueError, match=r"`dim` of NumericalEmbedding must be an int of at le"):
        NumericalEmbedding(1, "periodic")
    with pytest.raises(ValueError, match=r"`num_bins` of NumericalEmbedding must be an int of at"):
        NumericalEmbedding(num_bins=1)
    with pytest.raises(TypeError, match=r"`feature_bins` of NumericalEmbedding must be a non-em"):
        NumericalEmbedding(feature_bins=["8"])
    with pytest.raises(ValueError, match=r"'one' must be adapted before it is used"):
        NumericalEmbedding(name="one")(np.zeros((1, 2)))


@pytest.mark.parametrize("method", ["piecewise_linear", "periodic"])
def test_gradients_reach_every_weight(x, method):
    layer = adapt(x, 4, method)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND == "jax")
    before = [to_numpy(weight).copy() for weight in layer.trainable_weights]
    model.fit(x, x[:, :1], verbose=0)
    for old, weight in zip(before, layer.trainable_weights, strict=True):
        assert (old != to_numpy(weight)).any()
