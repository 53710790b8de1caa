"""A search over models with several inputs, which a backbone joins."""

import json

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from searching import Eager, make_tuner, once
from sklearn.metrics import roc_auc_score

from keras_binclf import BinaryClassifierHyperModel, build_best, find_head, predict_labels

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(240, 3)).astype("float32")
IMAGES = RNG.normal(size=(240, 4, 4, 1)).astype("float32")
Y = (NUMBERS[:, 0] + IMAGES.mean(axis=(1, 2, 3)) * 4 > 0).astype("float32")
X = {"numbers": NUMBERS, "image": IMAGES}
SHAPES = {"numbers": 3, "image": (4, 4, 1)}
SPACE = {"learning_rate": 0.05, "batch_size": 64, "label_smoothing": 0.0, "class_weight": None}


def take(x, rows):
    return keras.tree.map_structure(lambda array: array[rows], x)


TRAIN, HELD_OUT = (take(X, slice(160)), Y[:160]), (take(X, slice(160, None)), Y[160:])


@keras.saving.register_keras_serializable("test_hyper_model_inputs")
def join(hp, inputs):
    """Add up an image and put it beside the numbers."""
    units = hp.Choice("image_units", [2, 4])
    pixels = keras.layers.Flatten(name="flatten")(inputs["image"])
    image = keras.layers.Dense(units, name="image_dense")(pixels)
    return keras.layers.Concatenate(name="join")([inputs["numbers"], image])


@keras.saving.register_keras_serializable("test_hyper_model_inputs")
def join_list(hp, inputs):
    """The same for a list of inputs."""
    return join(hp, {"numbers": inputs[0], "image": inputs[1]})


def forgive_numbers(hp, inputs):
    """Map NaN among the numbers to 0."""
    numbers = inputs["numbers"]
    known = keras.ops.where(keras.ops.isnan(numbers), 0.0, numbers)
    return join(hp, {**inputs, "numbers": known})


@pytest.fixture(scope="module")
def hypermodel():
    return Eager(SHAPES, backbone=join, space=SPACE)


@pytest.fixture(scope="module")
def searched(hypermodel, tmp_path_factory):
    """Two trials over dicts of two inputs, and the file of the best model."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("search")
    tuner = make_tuner(hypermodel, folder)
    tuner.search(*TRAIN, validation_data=HELD_OUT, epochs=4, verbose=0)
    return tuner, build_best(tuner, folder / "best.keras"), folder / "best.keras"


def test_backbone_gets_a_dict_of_inputs_by_name(hypermodel):
    model = hypermodel.build(keras_tuner.HyperParameters())
    assert {tensor.name for tensor in model.inputs} == {"numbers", "image"}
    assert hypermodel.input_shape == {"numbers": (3,), "image": (4, 4, 1)}
    assert model.get_layer("join").output.shape == (None, 5)


def test_search_over_two_inputs_learns_from_both(searched):
    tuner, model, _ = searched
    x, y = HELD_OUT
    auc = roc_auc_score(y, model.predict(x, verbose=0)[:, 0])
    best = tuner.oracle.get_best_trials()[0]
    assert auc == pytest.approx(best.score, abs=1e-3)  # the metric has bins
    assert auc > roc_auc_score(y, x["numbers"][:, 0]) + 0.02


def test_best_model_of_two_inputs_gives_the_same_labels_from_its_file(searched):
    _, model, path = searched
    x, y = HELD_OUT
    labels = predict_labels(model, x)
    assert 0 < labels.sum() < len(y)
    np.testing.assert_array_equal(predict_labels(keras.models.load_model(path), x), labels)


@once
def test_preflight_builds_and_tries_a_model_of_two_inputs(hypermodel):
    ready = hypermodel.preflight(*TRAIN, validation_data=HELD_OUT)
    # A dense layer of 2 units on 16 pixels, and a head on these and 3 numbers.
    assert ready.default_size == 16 * 2 + 2 + (3 + 2) + 1


def trained_on(hypermodel, x, y=None, **options):
    """The weights after a training from the same start."""
    keras.utils.set_random_seed(7)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, x, y, epochs=2, shuffle=False, patience=None, **options)
    return model


def assert_equal_models(model, other):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def trained(hypermodel):
    return trained_on(hypermodel, *TRAIN, validation_data=HELD_OUT)


def test_a_list_of_inputs_trains_as_a_dict_does(trained):
    in_list = Eager([3, (4, 4, 1)], backbone=join_list, space=SPACE)
    assert in_list.input_shape == [(3,), (4, 4, 1)]
    data = [([x["numbers"], x["image"]], y) for x, y in (TRAIN, HELD_OUT)]
    other = trained_on(in_list, *data[0], validation_data=data[1])
    assert_equal_models(trained, other)


def test_validation_split_divides_all_inputs_at_the_same_row(hypermodel, trained):
    other = trained_on(hypermodel, X, Y, validation_split=80 / 240)
    assert_equal_models(trained, other)


class Batches(keras.utils.PyDataset):
    """Batches of 64 rows."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.y) // 64)

    def __getitem__(self, i):
        rows = slice(64 * i, 64 * (i + 1))
        return take(self.x, rows), self.y[rows]


@pytest.fixture(scope="module")
def for_batches():
    space = {name: value for name, value in SPACE.items() if name != "batch_size"}
    return Eager(SHAPES, backbone=join, space=space, tune_batch_size=False)


def test_a_data_set_of_dicts_trains_as_arrays_do(for_batches, trained):
    data = [Batches(*part) for part in (TRAIN, HELD_OUT)]
    assert_equal_models(trained, trained_on(for_batches, data[0], validation_data=data[1]))


@once
def test_batches_name_the_input_of_a_mistake(for_batches):
    """A name of no input is one, since Keras would take the parts of a dict by their places."""
    x, y = TRAIN
    bad = Batches(put(x, "image", 70, np.nan), y)
    with pytest.raises(ValueError, match=r"`x\['image'\] of batch 1` .* nan in row 6"):
        for_batches.preflight(bad, validation_data=HELD_OUT)
    more = Batches({**x, "key": np.arange(len(y))}, y)
    with pytest.raises(ValueError, match=r"`x of batch 0` .* a dict with 'key'"):
        for_batches.preflight(more, validation_data=HELD_OUT)


def test_folds_hold_out_the_same_rows_of_all_inputs(hypermodel):
    """The score of one fold is that of a model trained by Keras on the other rows."""
    rows = np.random.default_rng(1).permutation(240)
    fold = (rows[:160], rows[160:])
    keras.utils.set_random_seed(7)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    logs = hypermodel.fit(hp, model, X, Y, folds=[fold], epochs=2, patience=None, shuffle=False)
    keras.utils.set_random_seed(7)
    hypermodel.build(hp)
    peer = hypermodel.build(hp)
    peer.fit(take(X, fold[0]), Y[fold[0]], batch_size=64, epochs=2, shuffle=False, verbose=0)
    predicted = peer.predict(take(X, fold[1]), verbose=0)[:, 0]
    assert logs["val_auc"] == pytest.approx(roc_auc_score(Y[fold[1]], predicted), abs=2e-3)
    assert find_head(model).threshold == pytest.approx(logs["val_best_threshold"])


def test_balanced_class_weights_count_the_labels_of_several_inputs():
    weighted = Eager(SHAPES, backbone=join, space={**SPACE, "class_weight": "balanced"})
    plain = Eager(SHAPES, backbone=join, space=SPACE)
    share = float(TRAIN[1].mean())
    weights = {0: 0.5 / (1 - share), 1: 0.5 / share}
    model = trained_on(weighted, *TRAIN, validation_data=HELD_OUT)
    assert_equal_models(
        model, trained_on(plain, *TRAIN, validation_data=HELD_OUT, class_weight=weights)
    )


@once
def test_frame_gives_a_column_for_each_input_of_one_number():
    def add(hp, inputs):
        return keras.layers.Concatenate()([inputs["age"], inputs["income"]])

    hypermodel = Eager({"age": 1, "income": 1}, backbone=add, space=SPACE)
    frame = pd.DataFrame({"income": NUMBERS[:, 1], "age": NUMBERS[:, 0]})
    data = hypermodel.preflight(frame, Y, validation_split=0.25)
    assert data.default_size == 3
    with pytest.raises(ValueError, match=r"keys 'age', 'income'.* without 'age'"):
        hypermodel.preflight(frame[["income"]], Y, validation_split=0.25)


@once
@pytest.mark.parametrize(
    ("shapes", "backbone"), [(SHAPES, join), ([3, (4, 4, 1)], join_list)], ids=["dict", "list"]
)
def test_config_keeps_the_shapes_of_several_inputs(shapes, backbone):
    hypermodel = BinaryClassifierHyperModel(shapes, backbone=backbone, space=SPACE)
    config = json.loads(json.dumps(hypermodel.get_config()))
    copy = BinaryClassifierHyperModel.from_config(config)
    assert copy.input_shape == hypermodel.input_shape
    assert copy.get_config() == hypermodel.get_config()
    assert copy.project_name == hypermodel.project_name


@once
def test_projects_of_other_shapes_have_other_names(hypermodel):
    other = Eager({**SHAPES, "numbers": 4}, backbone=join, space=SPACE)
    assert other.project_name != hypermodel.project_name


def put(x, name, row, value):
    """A copy of rows with one other value in an input."""
    changed = {key: array.copy() for key, array in x.items()}
    changed[name][row].flat[1] = value
    return changed


@once
@pytest.mark.parametrize(
    ("name", "place"), [("numbers", "row 5, column 1"), ("image", r"row 5, position \(0, 1, 0\)")]
)
def test_an_infinity_is_named_with_its_input_and_row(hypermodel, name, place):
    x, y = TRAIN
    with pytest.raises(ValueError, match=rf"`x\['{name}'\]` .* inf in {place}"):
        hypermodel.preflight(put(x, name, 5, np.inf), y, validation_data=HELD_OUT)
    held_out = (put(HELD_OUT[0], name, 5, np.inf), HELD_OUT[1])
    with pytest.raises(ValueError, match=rf"`validation_data\[0\]\['{name}'\]` .* inf in {place}"):
        hypermodel.preflight(x, y, validation_data=held_out)


@once
def test_of_two_inputs_with_gaps_the_one_that_the_backbone_does_not_fill_is_named():
    hypermodel = Eager(SHAPES, backbone=forgive_numbers, space=SPACE)
    x, y = TRAIN
    gaps = put(x, "numbers", 3, np.nan)
    hypermodel.preflight(gaps, y, validation_data=HELD_OUT)
    both = put(gaps, "image", 3, np.nan)
    with pytest.raises(ValueError, match=r"`x\['image'\]` .* nan in row 3"):
        hypermodel.preflight(both, y, validation_data=HELD_OUT)


@once
def test_wrong_parts_of_several_inputs_are_named(hypermodel):
    x, y = TRAIN
    wide = {**x, "image": np.repeat(x["image"], 2, axis=-1)}
    words = {**x, "numbers": x["numbers"].astype("str")}
    with pytest.raises(ValueError, match=r"`x\['image'\]` .*\(n, 4, 4, 1\).*\(160, 4, 4, 2\)"):
        hypermodel.preflight(wide, y, validation_data=HELD_OUT)
    with pytest.raises(ValueError, match=r"equal length in all inputs.*159 rows of 'numbers'"):
        hypermodel.preflight({**x, "numbers": x["numbers"][1:]}, y, validation_data=HELD_OUT)
    with pytest.raises(ValueError, match=r"a dict with the keys 'image', 'numbers'.*'numbres'"):
        hypermodel.preflight(
            {"image": x["image"], "numbres": x["numbers"]}, y, validation_data=HELD_OUT
        )
    with pytest.raises(TypeError, match=r"`x\['numbers'\]` .* must be numbers"):
        hypermodel.preflight(words, y, validation_data=HELD_OUT)
