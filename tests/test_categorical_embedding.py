"""CategoricalEmbedding: against NumPy, code by code, and what hashing shares."""

import keras
import numpy as np
import pytest
from contract import BACKEND, to_numpy

from keras_binclf import CategoricalEmbedding

COUNTS = (2, 20, 100_000, 3)
MISSING = (True, False, True, False)
RARE = (False, True, False, False)


def hash_code(index, buckets):
    """Multiplicative hashing in Python's whole numbers, which have no overflow."""
    prime = 46337
    low, high = index % prime, index // prime % prime
    mixed = (low * 28637) % prime + (high * 17707) % prime
    return mixed % prime * buckets // prime


def find_level(code, count, has_missing, has_rare, buckets):
    """The level of a code, None where it becomes zeros."""
    first = has_missing + has_rare
    if code == 0 and has_missing:
        return 0
    if np.isfinite(code) and code == int(code):
        index = int(code) - 3
        if 0 <= index < count:
            return first + (hash_code(index, buckets) if count > buckets else index)
    return int(has_missing) if has_rare else None


def embed(codes, table, dim=8, most=9, buckets=500):
    """The oracle: one row of codes after the other, one column after the other."""
    rows = []
    for row in codes:
        outputs, start = [], 0
        for code, count, missing, rare in zip(row, COUNTS, MISSING, RARE, strict=True):
            size = missing + rare + (buckets if count > buckets else count)
            level = find_level(code, count, missing, rare, buckets)
            if size > most:
                outputs.append(np.zeros(dim) if level is None else table[start + level])
                start += size
            else:
                outputs.append(np.arange(size) == level)
        rows.append(np.concatenate(outputs))
    return np.array(rows)


@pytest.fixture(scope="module")
def codes():
    """Known codes, the special ones, those out of range, fractions, and NaN."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(-2, count + 6, 3000) for count in COUNTS], axis=1)
    codes = codes.astype("float32")
    codes[0], codes[1], codes[5], codes[6] = np.nan, 3.5, np.inf, -np.inf
    codes[2:5] = np.arange(3)[:, None]
    return codes


@pytest.fixture(scope="module")
def layer():
    layer = CategoricalEmbedding(COUNTS, num_buckets=500, has_missing=MISSING, has_rare=RARE)
    layer.build((None, 4))
    return layer


def test_every_code_has_the_vector_of_its_level(layer, codes):
    outputs = to_numpy(layer(codes))
    assert outputs.shape == (3000, layer.num_outputs) == (3000, 3 + 8 + 8 + 3)
    np.testing.assert_array_equal(outputs, embed(codes, to_numpy(layer.embeddings)))


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint8", "float64", "bool"])
def test_codes_of_every_type_are_the_same_codes(layer, codes, dtype):
    whole = np.nan_to_num(codes, nan=1, posinf=1, neginf=1).round()
    whole = np.clip(whole, 0, {"bool": 1, "uint8": 255, "int16": 30_000}.get(dtype, np.inf))
    outputs = to_numpy(layer(whole.astype(dtype)))
    np.testing.assert_array_equal(outputs, embed(whole, to_numpy(layer.embeddings)))


def test_sequences_are_embedded_like_their_rows(layer, codes):
    outputs = to_numpy(layer(codes.reshape(30, 100, 4)))
    np.testing.assert_array_equal(outputs.reshape(3000, -1), to_numpy(layer(codes)))


def test_first_vectors_are_small_and_uniform():
    layer = CategoricalEmbedding([5000], dim=4)
    layer.build((None, 1))
    vectors = to_numpy(layer.embeddings)
    assert vectors.shape == (5001, 4)
    assert 0.49 < np.abs(vectors).max() <= 0.5
    assert abs(vectors.mean()) < 0.02


def test_only_vectors_that_were_looked_up_are_trained():
    layer = CategoricalEmbedding([20], has_rare=[True])
    model = keras.Sequential([keras.Input((1,)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND == "jax")
    before = to_numpy(layer.embeddings).copy()
    model.train_on_batch(np.array([[3], [5], [1]]), np.ones((3, 1)))
    moved = (to_numpy(layer.embeddings) != before).any(axis=1)
    # Missing, rare (which takes the unknown code 1), then the categories.
    assert np.flatnonzero(moved).tolist() == [1, 2, 4]


@pytest.mark.parametrize(("count", "buckets"), [(500, 500), (500, 1000), (10**5, 46337), (60, 50)])
def test_hashed_categories_share_no_more_vectors_than_thrown_balls(count, buckets):
    """Balls thrown at random fill `b (1 − (1 − 1/b)^n)` of `b` buckets; ours fill no fewer."""
    layer = CategoricalEmbedding([10**6], dim=2, num_buckets=buckets)
    layer.build((None, 1))
    rng = np.random.default_rng(0)
    for index in (np.arange(count), rng.choice(10**6, count, replace=False)):
        vectors = to_numpy(layer(index[:, None] + 3))
        # Two float32 numbers as one of 64 bits.
        used = len(np.unique(vectors.view("int64")))
        expected = buckets * (1 - (1 - 1 / buckets) ** count)
        # Three standard deviations of the number of full buckets, at most sqrt(b) / 2 each.
        assert used > expected - 1.5 * buckets**0.5


def test_arguments_are_checked():
    with pytest.raises(TypeError, match=r"`num_categories` of CategoricalEmbedding must be a non"):
        CategoricalEmbedding(5)
    with pytest.raises(ValueError, match=r"`num_categories` of CategoricalEmbedding must be a no"):
        CategoricalEmbedding([0])
    with pytest.raises(ValueError, match=r"`has_rare` .* a list of 2 bools, one for each of `num"):
        CategoricalEmbedding([3, 4], has_rare=[True])
    with pytest.raises(ValueError, match=r"`num_buckets` .* None or an int of at most 46337"):
        CategoricalEmbedding([3], num_buckets=46338)
    with pytest.raises(ValueError, match=r"is for 2 features. Received inputs of 3"):
        CategoricalEmbedding([3, 4])(np.zeros((1, 3)))
