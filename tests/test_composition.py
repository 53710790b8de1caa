"""Whatever is built with our layers trains, is saved, and works in another process."""

import keras
import load_elsewhere
import numpy as np
import pytest
import reference
import zoo

import keras_binclf

MAKES = (*zoo.PLAIN, *zoo.WITH_TABLES, *zoo.WITH_OWN_CLASSES)
NAMES = [make.__name__ for make in MAKES]
EMIT_LOGITS = {("functional", ""), ("two_heads", "returns")}
BATCH = 5  # which leaves a smaller last batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def trained(folder):
    return {make.__name__: zoo.train_and_save(make, folder) for make in MAKES}


@pytest.fixture(scope="module")
def loaded(trained, folder):
    return zoo.load_in_fresh_process(folder, backend=keras.backend.backend())


@pytest.mark.parametrize("name", NAMES)
def test_training_moves_what_is_trainable_and_not_the_threshold(trained, name):
    assert np.all(np.isfinite(trained[name].history["loss"]))
    for weight in trained[name].weights:
        # Batch normalization moves its statistics by itself.
        if "/moving_" not in weight.path:
            assert weight.moved == weight.trainable, weight.path
    thresholds = [w for w in trained[name].weights if w.path.endswith("/threshold")]
    assert [w.moved for w in thresholds] == [False] * (2 if name == "two_heads" else 1)


def test_frozen_backbone_stays_as_it_is(trained):
    moved = [w.moved for w in trained["frozen_backbone"].weights if "mlp_block" in w.path]
    assert moved == [False] * 12  # two of dense and four of batch normalization, twice


def test_two_heads_report_their_own_metrics(trained):
    assert {"buys_accuracy", "returns_auc"} < set(trained["two_heads"].history)


@pytest.mark.parametrize("name", NAMES)
def test_label_is_positive_where_probability_exceeds_threshold(trained, name):
    answers = trained[name].answers
    for head in [key.removeprefix("outputs/") for key in answers if key.startswith("outputs/")]:
        scores = answers[f"outputs/{head}"].astype("float64")
        if (name, head) in EMIT_LOGITS:
            scores = reference.sigmoid(scores)
        labels = answers[f"labels/{head}"]
        np.testing.assert_array_equal(labels, scores > answers[f"threshold/{head}"])
        assert set(labels.flat) == {0, 1}


def test_columns_of_a_table_may_be_in_another_order(trained):
    answers = trained["table_classifier"].answers
    np.testing.assert_array_equal(answers["reordered/"], answers["labels/"])
    assert np.isnan(answers["encoded/"]).any()


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_identical_in_a_fresh_process(trained, loaded, name):
    assert "error" not in loaded[name], str(loaded[name]["error"])
    assert set(loaded[name]) - {"losses"} == set(trained[name].answers)
    for key, value in trained[name].answers.items():
        np.testing.assert_array_equal(loaded[name][key], value, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_training_continues_in_a_fresh_process_as_it_does_here(trained, loaded, name):
    assert "error" not in loaded[name], str(loaded[name]["error"])
    losses = loaded[name]["losses"]
    assert np.all(np.isfinite(losses))
    if name not in zoo.TRAIN_ON_AT_RANDOM:
        # The mean over two steps, of which the second shows that the optimizer kept its state.
        np.testing.assert_allclose(losses, trained[name].losses, rtol=1e-6)


class Rows(keras.utils.PyDataset):
    """The rows in batches, as people write it who read them from disk."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return -(-zoo.ROWS // BATCH)

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return (keras.tree.map_structure(lambda array: array[rows], self.x),)


def make_tf_dataset(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x,)).batch(BATCH)


@pytest.mark.parametrize("make_dataset", [make_tf_dataset, Rows])
@pytest.mark.parametrize("name", ["classifier", "functional", "masked_steps"])
def test_predict_labels_takes_datasets(trained, folder, name, make_dataset):
    model = keras.models.load_model(folder / f"{name}.keras")
    x = load_elsewhere.unpack(dict(np.load(folder / f"{name}.npz")), "x")
    labels = keras_binclf.predict_labels(model, make_dataset(x))
    np.testing.assert_array_equal(labels, trained[name].answers["labels/"])
