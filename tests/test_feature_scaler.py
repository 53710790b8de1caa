"""FeatureScaler: against NumPy in float64, on gaps and bad data, adapted to data of every form."""

import importlib

import keras
import numpy as np
import pandas as pd
import pytest
from contract import BACKEND, to_numpy

from keras_binclf import FeatureScaler


def adapt(x, **arguments):
    scaler = FeatureScaler(**arguments)
    scaler.adapt(x)
    return scaler


def scale(x, learned_from=None):
    """The oracle: median, quartiles or half the range, smooth clip, indicators of gaps."""
    x = np.asarray(x, "float64")
    known = x if learned_from is None else np.asarray(learned_from, "float64")
    median = np.nanmedian(known, axis=0)
    lower, upper = np.nanpercentile(known, [25, 75], axis=0)
    spread = upper - lower
    half = (np.nanmax(known, axis=0) - np.nanmin(known, axis=0)) / 2
    spread = np.where(spread == 0, half, spread)
    z = np.where(spread > 0, (x - median) / np.where(spread > 0, spread, 1.0), 0.0)
    bent = 3 * z / np.hypot(z, 3)  # z / sqrt(1 + (z / 3)²)
    gaps = np.isnan(x)
    with_gaps = np.isnan(known).any(axis=0)
    return np.concatenate([np.where(gaps, 0.0, bent), gaps[:, with_gaps]], axis=1)


@pytest.fixture(scope="module")
def x():
    """Columns that are plain, constant, mostly equal, with gaps, and with an outlier."""
    rng = np.random.default_rng(0)
    x = rng.normal(50, 20, (500, 5)).astype("float32")
    x[:, 1] = 7
    x[:400, 2] = 0
    x[::9, 3] = np.nan
    x[0, 4] = 1e30
    return x


def test_outputs_are_those_of_numpy(x):
    outputs = to_numpy(adapt(x)(x))
    assert outputs.shape == (500, 6)
    assert np.abs(outputs).max() <= 3
    # Values up to 3 in float32, after a subtraction of values near 50.
    np.testing.assert_allclose(outputs, scale(x), rtol=0, atol=1e-6)
    assert outputs[0, 4] == 3
    assert not outputs[:, 1].any()


def test_new_rows_with_gaps_elsewhere_become_the_median(x):
    scaler = adapt(x)
    rows = x[:3].copy()
    rows[:, 0] = np.nan
    np.testing.assert_allclose(to_numpy(scaler(rows)), scale(rows, x), rtol=0, atol=1e-6)
    nothing = to_numpy(scaler(np.full((1, 5), np.nan, "float32")))
    assert nothing.tolist() == [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]


def test_infinite_values_are_at_the_bound(x):
    rows = np.full((2, 5), np.inf, "float32")
    rows[1] = -np.inf
    outputs = to_numpy(adapt(x)(rows))
    assert outputs[:, [0, 2, 3, 4]].tolist() == [[3.0] * 4, [-3.0] * 4]


def test_learned_weights_are_median_and_one_over_the_quartiles_distance(x):
    scaler = adapt(x)
    assert [weight.name for weight in scaler.weights] == ["median", "factor"]
    assert not scaler.trainable_weights
    np.testing.assert_array_equal(to_numpy(scaler.median), np.nanmedian(x, axis=0))
    quartiles = np.nanpercentile(x[:, 0].astype("float64"), [75, 25])
    expected = 1 / np.subtract(*quartiles)
    np.testing.assert_allclose(to_numpy(scaler.factor)[0], expected, rtol=1e-6)


def test_sequences_are_scaled_like_their_rows(x):
    scaler = adapt(x)
    outputs = to_numpy(scaler(x.reshape(100, 5, 5)))
    np.testing.assert_array_equal(outputs.reshape(500, 6), to_numpy(scaler(x)))
    np.testing.assert_array_equal(
        to_numpy(adapt(x.reshape(100, 5, 5)).median), to_numpy(scaler.median)
    )


def test_statistics_that_were_never_learned_show_as_nan(x):
    clone = FeatureScaler.from_config(adapt(x).get_config())
    clone.build((None, 5))
    assert not clone.is_adapted
    assert np.isnan(to_numpy(clone(x))[:, :5]).all()


def test_gaps_that_are_an_error_stay_nan_in_new_rows(x):
    scaler = adapt(x[:, :2], missing="error")
    outputs = to_numpy(scaler(np.array([[np.nan, 7.0]], "float32")))
    np.testing.assert_array_equal(outputs, [[np.nan, 0.0]])
    with pytest.raises(ValueError, match=r"no gaps with `missing='error'`.*column 3, row 0"):
        adapt(x, missing="error")


# ---- data of other forms


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.x[i * 250 : i * 250 + 250], np.zeros(250)


def import_backend(name):
    """Return a backend's module; the import of another one takes seconds."""
    return importlib.import_module(name) if name == BACKEND else pytest.skip(f"needs {name}")


def to_data_set(x):
    tf = import_backend("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(64)


def to_loader(x):
    torch = import_backend("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x)), 64)


def to_polars(x):
    return pytest.importorskip("polars").DataFrame({str(i): x[:, i] for i in range(x.shape[1])})


def to_arrow(x):
    columns = {str(i): x[:, i] for i in range(x.shape[1])}
    return pytest.importorskip("pyarrow").table(columns)


def to_nullable(x):
    with np.errstate(invalid="ignore"):  # pandas 2 tries int64 for 1e30.
        return pd.DataFrame(x).convert_dtypes()


FORMS = {
    "float64": lambda x: x.astype("float64"),
    "list": lambda x: x.tolist(),
    "tensor": keras.ops.convert_to_tensor,
    "pandas": pd.DataFrame,
    "nullable": to_nullable,
    "polars": to_polars,
    "arrow": to_arrow,
    "generator": lambda x: (x[i : i + 100] for i in range(0, 500, 100)),
    "labelled": lambda x: ((x[i : i + 100], x[i : i + 100, 0]) for i in range(0, 500, 100)),
    "tables": lambda x: (pd.DataFrame(x[i : i + 100]) for i in range(0, 500, 100)),
    "data_set": to_data_set,
    "loader": to_loader,
    "py_dataset": Batches,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_is_learned_from_data_of_every_form(form, x):
    expected, scaler = adapt(x), adapt(FORMS[form](x))
    assert scaler.has_missing == expected.has_missing
    for ours, theirs in zip(scaler.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


def test_adapting_again_replaces_the_statistics_of_the_same_columns(x):
    scaler = adapt(x)
    scaler.adapt(x + 1)
    np.testing.assert_array_equal(to_numpy(scaler.median), np.nanmedian(x + 1, axis=0))
    with pytest.raises(ValueError, match=r"gaps in columns \[3\]. Received: 5 .* columns \[\]"):
        scaler.adapt(np.nan_to_num(x))


BAD = {
    "no_rows": (np.zeros((0, 3)), ValueError, "Received: no rows"),
    "vector": (np.zeros(3), ValueError, r"Received: an array of shape \(3,\)"),
    "words": (pd.DataFrame({"a": ["x"]}), TypeError, "`keras_binclf.TabularEncoder` takes tables"),
    "infinite": ([[1.0], [np.inf]], ValueError, r"finite in float32. Received: inf in column 0, r"),
    "too_large": ([[1.0], [1e39]], ValueError, r"finite in float32. Received: 1e\+39 in column 0"),
    "only_gaps": ([[1.0, np.nan]], ValueError, "none in column 1. Leave it out"),
    "widths": ((np.ones((2, w)) for w in (2, 3)), ValueError, "batches of 2 and of 3 columns"),
    "digits": ([[1e9], [1e9 + 1]], ValueError, "must vary within the digits of float32"),
    "spread": ([[-3e38]] * 2 + [[3e38]] * 2, ValueError, r"spread that float32 can hold"),
    "narrow": ([[0.0], [1e-45], [0.0], [1e-45]], ValueError, r"spread that float32 can hold"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused(name):
    data, error, message = BAD[name]
    with pytest.raises(error, match=message):
        FeatureScaler().adapt(data)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"`missing` of FeatureScaler must be one of"):
        FeatureScaler(missing="mean")
    with pytest.raises(ValueError, match=r"`has_missing` of FeatureScaler must be False everywh"):
        FeatureScaler(missing="error", has_missing=[True])
    with pytest.raises(ValueError, match=r"'one' must be adapted before it is used"):
        FeatureScaler(name="one")(np.zeros((1, 2)))
    scaler = adapt(np.eye(3))
    with pytest.raises(ValueError, match=r"expected axis -1 of input shape to have value 3"):
        scaler(np.zeros((1, 2)))
