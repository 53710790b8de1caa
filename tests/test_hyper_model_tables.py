"""A search over classifiers of tables: an encoder stands in the place of a shape."""

import gc
import json
import weakref

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from searching import Eager, Exploding, make_tuner, once
from sklearn.metrics import roc_auc_score
from tabular import make_table

from keras_binclf import (
    BinaryClassifierHyperModel,
    TabularEncoder,
    binary_classifier,
    build_best,
    find_head,
    predict_labels,
)

ROWS = 160
TABLE = make_table(ROWS)
Y = (TABLE["city"].eq("Rome") ^ (TABLE["age"] > 45)).to_numpy("float32")
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2.0, ROWS).astype("float32")
TRAIN, HELD_OUT = (TABLE[:110], Y[:110]), (TABLE[110:], Y[110:])
SPACE = {
    "num_layers": 0,
    "learning_rate": 0.05,
    "batch_size": 64,
    "label_smoothing": 0.0,
    "class_weight": None,
    "optimizer": "adam",
}


def adapt(table=TRAIN[0], **options):
    encoder = TabularEncoder(**options)
    encoder.adapt(table)
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return adapt()


@pytest.fixture(scope="module")
def hypermodel(encoder):
    return Eager(encoder, space=SPACE)


@pytest.fixture
def encoded(monkeypatch):
    """The number of rows of each table that an encoder encodes."""
    rows, encode = [], TabularEncoder.encode

    def count(self, table):
        matrix = encode(self, table)
        rows.append(len(matrix))
        return matrix

    monkeypatch.setattr(TabularEncoder, "encode", count)
    return rows


def trained_on(hypermodel, x, y=None, **options):
    """A model of the default trial, after a training from the same start."""
    options = {"epochs": 2, "shuffle": False, "patience": None, **options}
    keras.utils.set_random_seed(7)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, x, y, **options)
    return model


def assert_equal_models(model, other):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def trained(hypermodel):
    return trained_on(hypermodel, *TRAIN, validation_data=HELD_OUT)


def test_trial_on_a_table_is_a_training_by_keras_on_the_encoded_rows(trained, encoder):
    x, y = TRAIN
    peer = binary_classifier(encoder, hidden_units=None, learning_rate=0.05)
    peer.fit(encoder.encode(x), y, batch_size=64, epochs=2, shuffle=False, verbose=0)
    held_out = encoder.encode(HELD_OUT[0])
    expected = peer.predict(held_out, verbose=0)
    assert expected.std() > 0.01
    np.testing.assert_allclose(trained.predict(held_out, verbose=0), expected, atol=1e-6)


# ---- searches


def make_hypermodel():
    space = {**SPACE, "batch_size": [32, 64]}
    return Eager(adapt(embedding="periodic"), space=space, score="brier_score")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Two trials, in which the encoder has random numbers of its own to train."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("search")
    tuner = make_tuner(make_hypermodel(), folder)
    tuner.search(*TRAIN, validation_data=HELD_OUT, epochs=1, verbose=0)
    return tuner, build_best(tuner, folder / "best.keras"), folder


def test_best_score_is_that_of_the_best_model_on_the_table(searched):
    tuner, model, _ = searched
    x, y = HELD_OUT
    probability = model.predict(tuner.hypermodel.input_shape.encode(x), verbose=0)[:, 0]
    score = tuner.oracle.get_best_trials()[0].score
    assert np.mean((probability - y) ** 2) == pytest.approx(score, abs=1e-5)
    labels = predict_labels(model, x)[:, 0]
    np.testing.assert_array_equal(labels, probability > find_head(model).threshold)


def test_best_model_takes_the_table_from_its_file(searched):
    _, model, folder = searched
    loaded = keras.models.load_model(folder / "best.keras")
    for rows in (TABLE, TABLE[TABLE.columns[::-1]]):
        np.testing.assert_array_equal(predict_labels(loaded, rows), predict_labels(model, TABLE))


def test_search_is_resumed_with_an_encoder_that_was_adapted_again(searched):
    tuner, model, folder = searched
    again = make_hypermodel()
    assert again.project_name == tuner.hypermodel.project_name
    resumed = make_tuner(again, folder)
    assert len(resumed.oracle.trials) == 2
    assert_equal_models(build_best(resumed), model)


@once
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: adapt(TRAIN[0].drop(columns="age")), id="columns"),
        pytest.param(lambda: adapt(TRAIN[0][:100]), id="statistics"),
        pytest.param(lambda: adapt(embedding="piecewise_linear"), id="embedding"),
        pytest.param(lambda: adapt(max_categories=1), id="categories"),
    ],
)
def test_project_of_another_encoder_is_refused(hypermodel, other, tmp_path):
    x, y = TRAIN
    options = {"project_name": "mine", "max_trials": 1}
    make_tuner(hypermodel, tmp_path, **options).search(x, y, validation_data=HELD_OUT, epochs=1)
    tuner = make_tuner(Eager(other(), space=SPACE), tmp_path, **options)
    with pytest.raises(ValueError, match="was made by another search"):
        tuner.hypermodel.preflight(x, y, validation_data=HELD_OUT, tuner=tuner)


@once
def test_project_does_not_depend_on_the_name_of_the_encoder(hypermodel):
    other = Eager(adapt(name="shop"), space=SPACE)
    assert other.project_name == hypermodel.project_name


@once
def test_tables_are_encoded_once_a_search_and_not_kept_after_it(tmp_path, encoded):
    table = TRAIN[0].copy()
    hypermodel = Eager(adapt(), space={**SPACE, "batch_size": [32, 64]})
    tuner = make_tuner(hypermodel, tmp_path)
    tuner.search(table, TRAIN[1], validation_data=HELD_OUT, epochs=1, verbose=0)
    assert len(tuner.oracle.trials) == 2
    assert encoded == [110, 50]
    kept = weakref.ref(table)
    del table
    gc.collect()
    assert kept() is None


@once
def test_table_that_was_mended_after_a_stopped_search_is_encoded_anew(tmp_path, encoded):
    tuner = make_tuner(Eager(adapt(), space=SPACE), tmp_path, max_trials=1)
    options = {"validation_data": HELD_OUT, "epochs": 1, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        tuner.search(*TRAIN, callbacks=[Exploding(KeyboardInterrupt())], **options)
    tuner.search(*TRAIN, **options)
    assert encoded == [110, 50] * 2


@once
def test_trials_train_copies_of_the_encoder():
    encoder = adapt(embedding="periodic")
    before = encoder.get_weights()
    hypermodel = Eager(encoder, space=SPACE)
    model = trained_on(hypermodel, *TRAIN, validation_data=HELD_OUT)
    parts = [
        one.get_layer(encoder.name)
        for one in (model, hypermodel.build(keras_tuner.HyperParameters()))
    ]
    for weights in (encoder.get_weights(), parts[1].get_weights()):
        for one, first in zip(weights, before, strict=True):
            np.testing.assert_array_equal(one, first)
    changed = [(a != b).any() for a, b in zip(parts[0].get_weights(), before, strict=True)]
    assert any(changed)


@once
def test_encoder_of_the_search_is_that_of_its_making(encoder):
    """The user may train the layer in another model meanwhile."""
    own = adapt(embedding="periodic")
    hypermodel = BinaryClassifierHyperModel(own)
    first = own.get_weights()
    own.set_weights([weight + 1 for weight in first])
    layer = hypermodel.build(keras_tuner.HyperParameters()).get_layer(own.name)
    for ours, theirs in zip(layer.get_weights(), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@once
@pytest.mark.parametrize("form", ["one", "dict", "list"])
def test_config_holds_the_encoder_with_all_it_learned(form):
    own = adapt(embedding="periodic", name="shop")
    inputs = {"one": own, "dict": {"table": own, "image": (4, 4, 1)}, "list": [own, 3]}[form]
    options = {"space": SPACE} if form == "one" else {"space": WITH_BACKBONE, "backbone": join}
    hypermodel = BinaryClassifierHyperModel(inputs, **options)
    config = json.loads(json.dumps(hypermodel.get_config()))
    copy = BinaryClassifierHyperModel.from_config(config)
    assert copy.get_config() == hypermodel.get_config()
    assert copy.project_name == hypermodel.project_name
    (found,) = (
        part for part in keras.tree.flatten(copy.input_shape) if isinstance(part, TabularEncoder)
    )
    np.testing.assert_array_equal(found.encode(TABLE), own.encode(TABLE))
    for ours, theirs in zip(found.get_weights(), own.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ---- forms of tables


def polars_of(frame):
    return pytest.importorskip("polars").from_pandas(frame)


def arrow_of(frame):
    return pytest.importorskip("pyarrow").Table.from_pandas(frame, preserve_index=False)


def columns_of(frame):
    return {name: frame[name].to_numpy() for name in frame}


FORMS = {
    "other order": lambda frame: frame[frame.columns[::-1]],
    "more columns": lambda frame: frame.assign(note="x"),
    "dict": columns_of,
    "dict of lists": lambda frame: {name: frame[name].tolist() for name in frame},
    "dict of the input": lambda frame: {"features": frame},
    "polars": polars_of,
    "pyarrow": arrow_of,
}


@once
@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_any_form_trains_the_same_model(hypermodel, trained, form):
    (x, y), (held_out, labels) = TRAIN, HELD_OUT
    validation = (FORMS[form](held_out), labels)
    other = trained_on(hypermodel, FORMS[form](x), y, validation_data=validation)
    assert_equal_models(other, trained)


@once
def test_validation_split_divides_the_encoded_rows(hypermodel, trained):
    assert_equal_models(trained_on(hypermodel, TABLE, Y, validation_split=50 / ROWS), trained)


def test_weights_of_rows_go_with_tables(hypermodel, encoder):
    x, y = TRAIN
    ours = trained_on(
        hypermodel,
        x,
        y,
        sample_weight=WEIGHTS[:110],
        validation_data=(*HELD_OUT, WEIGHTS[110:]),
    )
    peer = binary_classifier(encoder, hidden_units=None, learning_rate=0.05)
    options = {"batch_size": 64, "epochs": 2, "shuffle": False, "verbose": 0}
    peer.fit(encoder.encode(x), y, sample_weight=WEIGHTS[:110], **options)
    np.testing.assert_allclose(
        find_head(ours).kernel,
        find_head(peer).kernel,
        atol=1e-6,  # sums in another order
    )


@once
def test_encoder_that_was_adapted_to_an_array_takes_raw_arrays():
    array = TABLE[["age", "city", "member"]].to_numpy(dtype=object)
    own = adapt(array[:110])
    hypermodel = Eager(own, space=SPACE)
    model = trained_on(hypermodel, array[:110], Y[:110], validation_data=(array[110:], Y[110:]))
    predicted = model.predict(own.encode(array), verbose=0)
    np.testing.assert_array_equal(
        predict_labels(model, array), predicted > find_head(model).threshold
    )


# ---- data sets


class Batches(keras.utils.PyDataset):
    """Batches of 64 rows, in some form."""

    def __init__(self, x, y, form=lambda frame: frame):
        super().__init__()
        self.x, self.y, self.form = x, y, form

    def __len__(self):
        return -(-len(self.y) // 64)

    def __getitem__(self, i):
        rows = slice(64 * i, 64 * (i + 1))
        return self.form(self.x[rows]), self.y[rows]


@pytest.fixture(scope="module")
def for_batches(encoder):
    space = {name: value for name, value in SPACE.items() if name != "batch_size"}
    return Eager(encoder, space=space, tune_batch_size=False)


@pytest.mark.parametrize("form", ["tables", "dicts", "encoded"])
def test_a_data_set_trains_as_its_table_does(for_batches, encoder, trained, form):
    of_batch = {"tables": lambda frame: frame, "dicts": columns_of, "encoded": encoder.encode}
    data, validation = (Batches(*rows, of_batch[form]) for rows in (TRAIN, HELD_OUT))
    assert_equal_models(trained_on(for_batches, data, validation_data=validation), trained)


def test_a_data_set_of_tensors_by_column_trains_as_its_table_does(for_batches, trained):
    tf = pytest.importorskip("tensorflow")

    def make(x, y):
        texts = x.select_dtypes(exclude=["number", "bool"]).astype(str)
        columns = {**columns_of(x), **columns_of(texts.where(x[texts.columns].notna(), ""))}
        return tf.data.Dataset.from_tensor_slices((columns, y)).batch(64)

    data = [make(*rows) for rows in (TRAIN, HELD_OUT)]
    assert_equal_models(trained_on(for_batches, data[0], validation_data=data[1]), trained)


@once
def test_data_set_of_tables_is_read_once_a_search(for_batches, encoder, tmp_path, encoded):
    tuner = make_tuner(for_batches, tmp_path, max_trials=1)
    data = [Batches(*rows) for rows in (TRAIN, HELD_OUT)]
    tuner.search(data[0], validation_data=data[1], epochs=3, verbose=0)
    assert encoded == [64, 46, 50]


@once
def test_mistake_in_a_batch_is_named_with_the_batch(for_batches):
    x, y = TRAIN
    wrong = x.assign(charge=x["charge"].where(x.index != 70, "much"))
    match = r"`x of batch 1` .* cannot be encoded.*'charge' .* must hold numbers.*'much'"
    with pytest.raises(ValueError, match=match):
        for_batches.preflight(Batches(wrong, y), validation_data=Batches(*HELD_OUT))
    with pytest.raises(ValueError, match="`x of validation batch 1`"):
        for_batches.preflight(Batches(x, y), validation_data=Batches(wrong, y))


@once
def test_searched_batch_size_beside_a_data_set_of_tables_is_refused(hypermodel, encoder):
    searching = Eager(encoder, space={"num_layers": 0})
    with pytest.raises(ValueError, match=r"batch size is searched.* of type Batches"):
        searching.preflight(Batches(*TRAIN), validation_data=Batches(*HELD_OUT))


# ---- folds

ORDER = np.random.default_rng(2).permutation(ROWS)
FOLDS = [(ORDER[:100], ORDER[100:]), (ORDER[60:], ORDER[:60])]


def score_folds(hypermodel, x, folds=FOLDS, epochs=2):
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    options = {"epochs": epochs, "patience": None, "shuffle": False}
    return hypermodel.fit(hp, model, x, Y, folds=folds, **options), model


@pytest.fixture(scope="module")
def scored(hypermodel):
    return score_folds(hypermodel, TABLE)


@pytest.fixture(scope="module")
def in_short(hypermodel):
    """The loss on one fold after one epoch."""
    return score_folds(hypermodel, TABLE, FOLDS[:1], epochs=1)[0]["val_loss"]


def test_folds_are_encoded_by_what_their_training_rows_tell(scored):
    """The score is that of models by Keras, each with an encoder of its own."""
    predicted, count = np.zeros(ROWS), np.zeros(ROWS)
    for rows, held_out in FOLDS:
        own = adapt(TABLE.iloc[rows])
        peer = binary_classifier(own, hidden_units=None, learning_rate=0.05)
        x = own.encode(TABLE.iloc[rows])
        peer.fit(x, Y[rows], batch_size=64, epochs=2, shuffle=False, verbose=0)
        predicted[held_out] += peer.predict(own.encode(TABLE.iloc[held_out]), verbose=0)[:, 0]
        count[held_out] += 1
    seen = count > 0
    expected = roc_auc_score(Y[seen], predicted[seen] / count[seen])
    assert scored[0]["val_auc"] == pytest.approx(expected, abs=2e-3)  # the metric has bins


@once
def test_held_out_rows_teach_the_encoder_of_a_fold_nothing(hypermodel):
    """A number far away, or a word, in a held-out row changes no other row's prediction."""
    shifted = TABLE.copy()
    row = FOLDS[0][1][0]
    shifted.loc[row, ["age", "city"]] = [1e6, "Trondheim"]
    scores = [score_folds(hypermodel, table, FOLDS[:1])[0]["val_auc"] for table in (TABLE, shifted)]
    # One row of 60 was predicted otherwise, which moves the area by its pairs with others only.
    held_out = Y[FOLDS[0][1]]
    same_class = (held_out == Y[row]).sum()
    assert abs(scores[0] - scores[1]) <= 1 / same_class + 2e-3  # the metric has bins


@once
@pytest.mark.parametrize("form", [form for form in FORMS if form != "more columns"])
def test_folds_of_a_table_of_any_form_have_the_same_score(hypermodel, in_short, form):
    logs, _ = score_folds(hypermodel, FORMS[form](TABLE), FOLDS[:1], epochs=1)
    assert logs["val_loss"] == in_short


@once
def test_kinds_of_columns_are_the_same_in_all_folds():
    """Numbers with one word among them are words, also where that word is held out."""
    table = pd.DataFrame({"visits": ["1", "2"] * 80, "age": TABLE["age"], "city": TABLE["city"]})
    table.loc[ORDER[-1], "visits"] = "many"
    own = adapt(table, kinds={"visits": {"kind": "category", "min_count": 30}})
    logs, _ = score_folds(Eager(own, space=SPACE), table, FOLDS[:1])
    assert 0 < logs["val_auc"] < 1


@once
def test_folds_are_encoded_once_a_search(tmp_path, encoded):
    hypermodel = Eager(adapt(), space={**SPACE, "batch_size": [32, 64]})
    tuner = make_tuner(hypermodel, tmp_path)
    tuner.search(TABLE, Y, folds=FOLDS, epochs=1, verbose=0)
    assert len(tuner.oracle.trials) == 2
    assert encoded == [ROWS, 100, 60, 100, 60]


@once
def test_preflight_names_the_fold_of_which_an_encoder_cannot_learn():
    table = pd.DataFrame({"age": np.where(np.arange(ROWS) < 80, 3.0, TABLE["visits"])})
    folds = [(np.arange(80, ROWS), np.arange(80)), (np.arange(70), np.arange(70, ROWS))]
    table.loc[:69, "age"] = np.nan
    hypermodel = Eager(adapt(table), space=SPACE)
    with pytest.raises(ValueError, match=r"`fold 1 of x` .* cannot be encoded.*'age'.*gaps"):
        hypermodel.preflight(table, Y, folds=folds)


# ---- several inputs

IMAGES = np.random.default_rng(3).normal(size=(ROWS, 4, 4, 1)).astype("float32")


@keras.saving.register_keras_serializable("test_hyper_model_tables")
def join(hp, inputs):
    parts = inputs.values() if isinstance(inputs, dict) else inputs
    return keras.layers.Concatenate()([keras.layers.Flatten()(part) for part in parts])


@pytest.fixture(scope="module")
def both(encoder):
    return Eager({"table": encoder, "image": (4, 4, 1)}, backbone=join, space=WITH_BACKBONE)


WITH_BACKBONE = {name: value for name, value in SPACE.items() if name != "num_layers"}


def take_both(rows):
    return {"table": TABLE[rows], "image": IMAGES[rows]}, Y[rows]


def test_a_table_beside_an_image_trains_as_its_features_do(both, encoder):
    """The backbone gets what the encoder, which has nothing to train, makes of the table."""
    train, held_out = take_both(slice(110)), take_both(slice(110, None))
    model = trained_on(both, *train, validation_data=held_out)
    x = {
        "table": keras.ops.convert_to_numpy(encoder(encoder.encode(TABLE))),
        "image": IMAGES,
    }
    shapes = {"table": x["table"].shape[1], "image": (4, 4, 1)}
    peer = trained_on(
        Eager(shapes, backbone=join, space=WITH_BACKBONE),
        {name: part[:110] for name, part in x.items()},
        Y[:110],
        validation_data=({name: part[110:] for name, part in x.items()}, Y[110:]),
    )
    labels = predict_labels(model, {"table": TABLE, "image": IMAGES})
    np.testing.assert_array_equal(labels, predict_labels(peer, x))
    np.testing.assert_allclose(find_head(model).kernel, find_head(peer).kernel, atol=1e-6)


@once
def test_folds_divide_a_table_and_an_image(both):
    x, y = take_both(slice(None))
    hp = keras_tuner.HyperParameters()
    logs = both.fit(hp, both.build(hp), x, y, folds=FOLDS, epochs=1)
    assert np.isfinite(logs["val_loss"])
    assert both.input_shape["image"] == (4, 4, 1)


@once
def test_a_data_set_of_a_table_and_an_image(encoder):
    space = {name: value for name, value in WITH_BACKBONE.items() if name != "batch_size"}
    hypermodel = Eager(
        {"table": encoder, "image": (4, 4, 1)}, backbone=join, space=space, tune_batch_size=False
    )

    class Pairs(Batches):
        def __getitem__(self, i):
            return take_both(slice(64 * i, 64 * (i + 1)))

    data = Pairs(TABLE, Y)
    ready = hypermodel.preflight(data, validation_data=data)
    assert ready.default_size == hypermodel.build(
        keras_tuner.HyperParameters()
    ).count_params() - count_fixed(hypermodel)


def count_fixed(hypermodel):
    weights = hypermodel.build(keras_tuner.HyperParameters()).non_trainable_weights
    return sum(int(np.prod(weight.shape)) for weight in weights)


@once
def test_mistakes_beside_a_table_are_named_with_their_input(both):
    (x, y), held_out = take_both(slice(110)), take_both(slice(110, None))
    infinite = {**x, "table": x["table"].assign(age=np.inf)}
    with pytest.raises(ValueError, match=r"`x\['table'\]` .* cannot be encoded.*'age'.*inf"):
        both.preflight(infinite, y, validation_data=held_out)
    gaps = {**x, "image": np.where(np.arange(110)[:, None, None, None] == 5, np.nan, x["image"])}
    with pytest.raises(ValueError, match=r"`x\['image'\]` .* nan in row 5"):
        both.preflight(gaps, y, validation_data=held_out)
    short = {**x, "image": x["image"][1:]}
    with pytest.raises(ValueError, match=r"equal length in all inputs"):
        both.preflight(short, y, validation_data=held_out)


# ---- mistakes


@once
def test_labels_and_weights_beside_a_table_are_checked(hypermodel):
    x, y = TRAIN
    with pytest.raises(ValueError, match=r"`y` .* nan in row 4"):
        hypermodel.preflight(x, np.where(np.arange(110) == 4, np.nan, y), validation_data=HELD_OUT)
    weights = np.where(np.arange(110) == 4, np.inf, 1.0)
    with pytest.raises(ValueError, match=r"`sample_weight` .* inf in row 4"):
        hypermodel.preflight(x, y, sample_weight=weights, validation_data=HELD_OUT)


@once
def test_mistake_in_validation_rows_is_named(hypermodel):
    x, y = HELD_OUT
    match = r"`validation_data\[0\]` .* cannot be encoded.*column 'city'"
    with pytest.raises(ValueError, match=match):
        hypermodel.preflight(*TRAIN, validation_data=(x.drop(columns="city"), y))


@once
def test_encoded_matrix_in_the_place_of_a_table_is_refused(hypermodel, encoder):
    x, y = TRAIN
    with pytest.raises(ValueError, match=r"`x` .* must be a table of named columns"):
        hypermodel.preflight(encoder.encode(x), y, validation_data=HELD_OUT)
