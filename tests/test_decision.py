import keras
import numpy as np
import pytest
from zoo import with_random_head

from keras_binclf import (
    BinaryHead,
    MLPBlock,
    binary_classifier,
    find_head,
    predict_class_names,
    predict_labels,
)

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")


def two_heads(**names):
    inputs = keras.Input((4,))
    hidden = MLPBlock(8)(inputs)
    heads = [BinaryHead(threshold=0.4, name="click"), BinaryHead(None, threshold=0.6, name="buy")]
    return keras.Model(inputs, {"z": heads[0](hidden), "a": heads[1](hidden)}), heads


@pytest.mark.parametrize("activation_out", ["sigmoid", None])
def test_labels_are_probability_over_threshold(activation_out):
    model = with_random_head(binary_classifier(4, activation_out=activation_out, compile=False))
    outputs = model.predict(X, verbose=0).astype("float64")
    probability = outputs if activation_out else 1 / (1 + np.exp(-outputs))
    for threshold in (0.3, 0.5, float(np.median(probability)) + 1e-4):
        find_head(model).threshold = threshold
        labels = predict_labels(model, X)
        assert labels.shape == (40, 1)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, probability > threshold)
    assert 0 < labels.sum() < 40


def test_class_names_follow_the_labels():
    model = with_random_head(binary_classifier(4, compile=False))
    find_head(model).class_names = ("no", "yes")
    names = predict_class_names(model, X, batch_size=7)
    assert names.shape == (40, 1)
    np.testing.assert_array_equal(names == "yes", predict_labels(model, X) == 1)


def test_sequence_outputs_keep_their_shape():
    model = keras.Sequential([keras.Input((3, 4)), BinaryHead(class_names=("no", "yes"))])
    x = X.reshape(-1, 2, 4)[:, [0, 1, 0]]
    assert predict_labels(model, x).shape == (20, 3, 1)
    assert predict_class_names(model, x).shape == (20, 3, 1)


def test_one_of_two_heads_is_chosen_by_name_path_or_itself():
    model, heads = two_heads()
    outputs = model.predict(X, verbose=0)
    click = outputs["z"] > 0.4
    buy = 1 / (1 + np.exp(-outputs["a"].astype("float64"))) > 0.6
    assert not np.array_equal(click, buy)
    for chosen, expected in zip(heads, (click, buy), strict=True):
        for head in (chosen, chosen.name, chosen.path):
            np.testing.assert_array_equal(predict_labels(model, X, head=head), expected)
        assert find_head(model, chosen.name) is chosen


def test_outputs_of_nested_models_are_traced_to_their_head():
    inner, heads = two_heads()
    inputs = keras.Input((4,))
    parts = inner(inputs)
    outer = keras.Model(inputs, [parts["a"], keras.layers.Dense(2)(inputs), parts["z"]])
    for head in heads:
        np.testing.assert_array_equal(
            predict_labels(outer, X, head=head), predict_labels(inner, X, head=head)
        )


def test_head_inside_a_wrapper_is_found():
    head = BinaryHead()
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, keras.layers.TimeDistributed(head)(inputs))
    assert find_head(model) is head
    assert predict_labels(model, np.zeros((2, 3, 4))).shape == (2, 3, 1)


def test_head_shared_by_two_outputs_is_one_head():
    head = BinaryHead()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [head(MLPBlock(4)(inputs)), head(inputs)][:1])
    assert find_head(model) is head


def test_head_is_found_in_a_model_that_is_not_built():
    assert find_head(keras.Sequential([MLPBlock(4), BinaryHead(name="late")])).name == "late"


class Subclassed(keras.Model):
    def __init__(self, outputs):
        super().__init__()
        self.click, self.buy, self.combine = (
            BinaryHead(name="click"),
            BinaryHead(name="buy"),
            outputs,
        )

    def call(self, inputs):
        return self.combine(self.click(inputs), self.buy(inputs))


def test_subclassed_model_names_its_outputs_by_head():
    model = Subclassed(lambda click, buy: {"buy": buy, "click": click})
    outputs = model.predict(X, verbose=0)
    for name in ("click", "buy"):
        np.testing.assert_array_equal(predict_labels(model, X, head=name), outputs[name] > 0.5)


def test_subclassed_model_with_unnamed_outputs_is_refused():
    model = Subclassed(lambda click, buy: [buy, click])
    with pytest.raises(
        ValueError, match=r"Cannot tell which of the 2 outputs .* a dict of outputs whose keys"
    ):
        predict_labels(model, X, head="click")


def test_head_that_is_not_an_output_is_refused():
    inputs = keras.Input((4,))
    head = BinaryHead(name="inside")
    model = keras.Model(inputs, 1.0 - head(inputs))
    with pytest.raises(ValueError, match="'inside' emits 0 of the outputs"):
        predict_labels(model, X)


class Tower(keras.layers.Layer):
    """Two heads in one layer, of which nobody outside can tell who emits what."""

    def __init__(self):
        super().__init__()
        self.click, self.buy = BinaryHead(name="click"), BinaryHead(name="buy")

    def call(self, inputs):
        return [self.click(inputs), self.buy(inputs)]


def test_head_inside_a_layer_that_does_more_is_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Tower()(inputs))
    with pytest.raises(ValueError, match="'buy' emits 0 of the outputs"):
        predict_labels(model, X, head="buy")


def test_head_that_emits_two_outputs_is_refused():
    head = BinaryHead()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [head(inputs), head(2.0 * inputs)])
    with pytest.raises(ValueError, match="emits 2 of the outputs"):
        predict_labels(model, X)


def test_outputs_that_no_head_can_have_emitted_are_refused():
    class Gate(keras.Model):
        def __init__(self):
            super().__init__()
            self.head, self.dense = BinaryHead(), keras.layers.Dense(3)

        def call(self, inputs):
            return self.head(inputs) * self.dense(inputs)

    with pytest.raises(ValueError, match=r"returned \(40, 3\)"):
        predict_labels(Gate(), X)


def test_head_of_another_subclassed_model_is_refused():
    model, other = Subclassed(lambda click, buy: click), binary_classifier(4)
    with pytest.raises(ValueError, match="'binary_head' is not part of model 'subclassed'"):
        predict_labels(model, X, head=find_head(other))


def test_equal_names_in_an_ensemble_are_told_apart_by_the_head_itself():
    members = [
        with_random_head(binary_classifier(4, compile=False, name=name)) for name in ("a", "b")
    ]
    inputs = keras.Input((4,))
    ensemble = keras.Model(inputs, [member(inputs) for member in members])
    with pytest.raises(ValueError, match="Their paths repeat: give the head itself"):
        find_head(ensemble)
    for member in members:
        labels = predict_labels(ensemble, X, head=find_head(member))
        np.testing.assert_array_equal(labels, predict_labels(member, X))


def test_threshold_that_is_no_probability_is_refused():
    model = binary_classifier(4)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)\. Received: threshold=0\.0"):
        predict_labels(model, X)


def test_nan_is_not_a_negative():
    # Without hidden layers: TensorFlow's fused dense and ReLU turn NaN into 0 in `predict`.
    model = binary_classifier(4, hidden_units=None, compile=False)
    x = X.copy()
    x[[5, 9], 2] = np.nan
    with pytest.raises(ValueError, match="NaN for 2 of 40 rows, the first at index 5"):
        predict_labels(model, x)


def test_head_without_class_names_is_refused():
    with pytest.raises(ValueError, match=r"has no `class_names`.*Set `head.class_names"):
        predict_class_names(binary_classifier(4), X)
