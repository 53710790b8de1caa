"""BinaryClassifierHyperModel: what is searched, and what the model of a trial is."""

import itertools
import json
import random
import re
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
from searching import once

from keras_binclf import (
    BestThreshold,
    BinaryAUC,
    BinaryClassifierHyperModel,
    ThresholdMetric,
    binary_classifier,
    find_head,
)
from keras_binclf.metrics import Criterion

pytestmark = [
    # Of the Gaussian process behind Bayesian optimization, which has 20 other starts.
    pytest.mark.filterwarnings("ignore:The optimal value found for dimension"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge"),
]

BLOCK = {"units", "activation", "dropout_rate", "normalization", "residual"}
ALWAYS = {
    "num_layers",
    "optimizer",
    "learning_rate",
    "label_smoothing",
    "class_weight",
    "batch_size",
}


def expected_names(values, *, prior):
    """Which hyperparameters mean something, said once more and in another way."""
    names = set(ALWAYS)
    names |= {"prior_bias"} if prior else set()
    names |= BLOCK if values["num_layers"] else set()
    names |= {"width_shape"} if values["num_layers"] > 1 else set()
    names |= {"weight_decay"} if values["optimizer"] == "adamw" else set()
    return names


def make_tuner(hypermodel, folder, kind, **options):
    tuner = getattr(keras_tuner, kind)(
        hypermodel,
        hypermodel.objective,
        directory=str(folder),
        project_name=hypermodel.project_name,
        **options,
    )
    tuner.oracle.verbose = 0
    return tuner


TUNERS = {
    "RandomSearch": {"max_trials": 40, "seed": 1},
    "BayesianOptimization": {"max_trials": 8, "num_initial_points": 6, "seed": 1},
    "GridSearch": {"max_trials": 40},
    "Hyperband": {"max_epochs": 9, "seed": 1},
}


def simulate(tuner, name, evaluate):
    """Run a search without training: `evaluate` gives the objective from the values."""
    trials = []
    while True:
        trial = tuner.oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            return trials
        if trial.status == "IDLE":
            continue
        tuner.oracle.update_trial(trial.trial_id, {name: evaluate(trial.hyperparameters.values)})
        trial.status = "COMPLETED"
        tuner.oracle.end_trial(trial)
        trials.append(trial)


def own_values(trial):
    return {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}


@once
@pytest.mark.parametrize("kind", TUNERS)
@pytest.mark.parametrize("prior", [None, 0.2])
def test_trials_have_values_for_what_means_something_and_for_nothing_else(tmp_path, kind, prior):
    hypermodel = BinaryClassifierHyperModel(4, prior=prior)
    tuner = make_tuner(hypermodel, tmp_path, kind, **TUNERS[kind])
    chance = random.Random(0)
    trials = simulate(tuner, "val_auc", lambda values: chance.random())
    assert len(trials) >= 8
    for trial in trials:
        values = own_values(trial)
        assert set(values) == expected_names(values, prior=prior)
    if kind != "GridSearch":  # which starts at one corner
        assert {0, 1} < {own_values(trial)["num_layers"] for trial in trials}


@once
@pytest.mark.parametrize("kind", TUNERS)
@pytest.mark.parametrize(
    ("score", "name"),
    [
        ("best_f1", "val_best_f1"),
        (ThresholdMetric("cost", cost_fp=1, cost_fn=10), "val_cost"),
    ],
    ids=["best_f1", "cost"],
)
def test_tuners_search_in_the_direction_of_the_score(tmp_path, kind, score, name):
    """The value is the learning rate, so the best trial is the one with the extreme rate."""
    # Few dimensions: the Gaussian process takes the longer the more there are.
    space = {"num_layers": 0, "label_smoothing": 0.0, "class_weight": None, "optimizer": "adam"}
    hypermodel = BinaryClassifierHyperModel(4, score=score, space=space)
    assert hypermodel.objective.name == name
    tuner = make_tuner(hypermodel, tmp_path, kind, **TUNERS[kind])
    trials = simulate(tuner, name, lambda values: float(values["learning_rate"]))
    rates = [own_values(trial)["learning_rate"] for trial in trials]
    best = tuner.get_best_hyperparameters()[0].get("learning_rate")
    assert best == (max if name == "val_best_f1" else min)(rates)
    assert min(rates) < max(rates)
    if kind == "BayesianOptimization":
        # It learns which way is better: what it chooses beats what it drew at random.
        drawn, chosen = np.mean(np.log(rates[:6])), np.mean(np.log(rates[6:]))
        assert chosen > drawn if name == "val_best_f1" else chosen < drawn


def test_default_point_is_the_default_classifier():
    keras.utils.set_random_seed(3)
    model = BinaryClassifierHyperModel(6).build(keras_tuner.HyperParameters())
    keras.utils.set_random_seed(3)
    peer = binary_classifier(6)
    assert [type(a) for a in model.layers] == [type(b) for b in peer.layers]
    for ours, theirs in zip(model.layers, peer.layers, strict=True):
        assert ours.get_config() == theirs.get_config()
    for ours, theirs in zip(model.weights, peer.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours, theirs)))
    assert type(model.optimizer) is type(peer.optimizer)
    drop = {"name"}
    assert {k: v for k, v in model.optimizer.get_config().items() if k not in drop} == {
        k: v for k, v in peer.optimizer.get_config().items() if k not in drop
    }
    assert model.loss.get_config() == peer.loss.get_config()
    assert metric_names(model) == metric_names(peer)


def metric_names(model):
    x = np.zeros((2, *model.input_shape[1:]), "float32")
    model.run_eagerly = True
    return set(model.test_on_batch(x, np.array([0, 1]), return_dict=True))


def widths(model):
    block = [layer for layer in model.layers if layer.name == "mlp_block"]
    return block[0].hidden_units if block else None


@pytest.mark.parametrize(
    ("number", "units", "shape", "expected"),
    [
        (0, None, None, None),
        (1, 64, None, (64,)),
        (2, 64, "halving", (64, 32)),
        (4, 32, "halving", (32, 16, 8, 8)),
        (3, 128, "constant", (128, 128, 128)),
        (3, 128, "doubling", (32, 64, 128)),
        (2, 4, "halving", (4, 4)),
    ],
)
def test_widths_follow_from_number_widest_and_shape(number, units, shape, expected):
    space = {"num_layers": number, "units": [units or 16, 512], "width_shape": shape or "halving"}
    hp = keras_tuner.HyperParameters()
    hp.values = {"units": units} if number else {}
    assert widths(BinaryClassifierHyperModel(3, space=space).build(hp)) == expected


def test_every_point_can_be_built_and_has_what_it_says():
    hypermodel = BinaryClassifierHyperModel(5, prior=0.1)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    chance = random.Random(1)
    for _ in range(15):
        hp.values = {}
        for parameter in hp.space:
            if hp.is_active(parameter):
                hp.values[parameter.name] = parameter.random_sample(chance.random())
        model = hypermodel.build(hp)
        block = next((layer for layer in model.layers if layer.name == "mlp_block"), None)
        assert (block is None) == (hp.get("num_layers") == 0)
        if block is not None:
            assert len(block.hidden_units) == hp.get("num_layers")
            assert max(block.hidden_units) == hp.get("units")
            assert block.dropout_rate == hp.get("dropout_rate")
            assert block.residual == hp.get("residual")
            assert (block.normalization or "none") == hp.get("normalization")
            assert block.activation.__name__ == hp.get("activation")
        bias = float(keras.ops.convert_to_numpy(find_head(model).bias)[0])
        assert bias == pytest.approx(np.log(0.1 / 0.9) if hp.get("prior_bias") else 0.0)
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        assert rate == pytest.approx(hp.get("learning_rate"))
        decay = hp.get("weight_decay") if hp.get("optimizer") == "adamw" else None
        assert model.optimizer.weight_decay == decay
        assert model.loss.label_smoothing == hp.get("label_smoothing")


def searched(hypermodel):
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    return {parameter.name: parameter for parameter in hp.space}


def test_a_value_fixes_and_what_depends_on_it_alone_is_gone():
    hypermodel = BinaryClassifierHyperModel(
        3, space={"num_layers": 1, "optimizer": "adam", "normalization": None, "residual": True}
    )
    names = set(searched(hypermodel))
    gone = {"num_layers", "optimizer", "normalization", "residual", "width_shape", "weight_decay"}
    assert not names & gone
    assert names == (ALWAYS | BLOCK) - gone
    block = hypermodel.build(keras_tuner.HyperParameters()).get_layer("mlp_block")
    assert (block.hidden_units, block.residual, block.normalization) == ((64,), True, None)


def test_no_conditions_where_none_are_needed():
    space = {"num_layers": {"min_value": 2}, "optimizer": "adamw"}
    parameters = searched(BinaryClassifierHyperModel(3, space=space))
    assert all(not parameter.conditions for parameter in parameters.values())
    assert {"width_shape", "weight_decay"} <= set(parameters)


def test_choices_and_ranges_replace_what_they_say_and_keep_the_rest():
    parameters = searched(
        BinaryClassifierHyperModel(
            3,
            space={
                "units": [8, 32],
                "activation": ["tanh", "relu"],
                "learning_rate": {"max_value": 0.1},
                "dropout_rate": {"min_value": 0.1, "max_value": 0.5, "step": 0.2},
                "batch_size": {"min_value": 16, "max_value": 64, "sampling": "log"},
                "epochs": [5, 10],
            },
        )
    )
    assert parameters["units"].values == [8, 32]
    assert parameters["units"].default == 8  # 64 is not among them
    assert parameters["activation"].default == "relu"
    rate = parameters["learning_rate"]
    assert (rate.min_value, rate.max_value, rate.sampling, rate.default) == (1e-4, 0.1, "log", 1e-3)
    # Both ends are there; of the new range, the default is what is nearest to the old one.
    assert parameters["dropout_rate"].values == [0.1, 0.3, 0.5]
    assert parameters["dropout_rate"].default == 0.1
    batch = parameters["batch_size"]
    assert (batch.min_value, batch.max_value, batch.sampling) == (16, 64, "log")
    assert parameters["epochs"].values == [5, 10]


def test_hidden_units_say_all_widths():
    fixed = BinaryClassifierHyperModel(3, space={"hidden_units": (20, 10)})
    assert not set(searched(fixed)) & {"num_layers", "units", "width_shape", "hidden_units"}
    assert widths(fixed.build(keras_tuner.HyperParameters())) == (20, 10)
    choice = BinaryClassifierHyperModel(3, space={"hidden_units": [None, (64, 32), 128]})
    hp = keras_tuner.HyperParameters()
    seen = {}
    for stack in ("none", "64-32", "128"):
        hp = keras_tuner.HyperParameters()
        hp.values = {"hidden_units": stack}
        seen[stack] = widths(choice.build(hp))
        assert ("activation" in hp.values) == (stack != "none")
    assert seen == {"none": None, "64-32": (64, 32), "128": (128,)}
    assert searched(choice)["hidden_units"].default == "64-32"


def scaler_for(x):
    scaler = keras.layers.Normalization()
    scaler.adapt(x)
    return scaler


X = np.random.default_rng(0).normal(3, 5, size=(40, 3)).astype("float32")


def test_each_model_gets_a_scaler_of_its_own_with_the_same_numbers():
    scaler = scaler_for(X)
    hypermodel = BinaryClassifierHyperModel(3, scaler=scaler)
    expected = keras.ops.convert_to_numpy(scaler(X))
    layers = []
    for _ in range(2):
        model = hypermodel.build(keras_tuner.HyperParameters())
        layers += [layer for layer in model.layers if isinstance(layer, type(scaler))]
    assert len({*map(id, layers), id(scaler)}) == 3
    for layer in layers:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(X)), expected)


def test_a_scaler_of_several_layers_keeps_their_numbers():
    scaler = keras.Sequential([keras.Input((3,)), scaler_for(X), keras.layers.Rescaling(2.0)])
    model = BinaryClassifierHyperModel(3, scaler=scaler).build(keras_tuner.HyperParameters())
    copy = model.layers[1]
    assert copy is not scaler
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(copy(X)), keras.ops.convert_to_numpy(scaler(X))
    )


@keras.saving.register_keras_serializable(package="test_hyper_model")
def convolutions(hp, inputs):
    x = inputs
    for i in range(hp.Int("blocks", 1, 2)):
        x = keras.layers.Conv2D(hp.Choice(f"filters_{i}", [4, 8]), 3, padding="same")(x)
    return keras.layers.GlobalAveragePooling2D()(x)


def test_backbone_replaces_the_block_and_nothing_else():
    hypermodel = BinaryClassifierHyperModel((8, 8, 1), backbone=convolutions, prior=0.3)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    names = {parameter.name for parameter in hp.space}
    assert names == (ALWAYS - {"num_layers"}) | {
        "prior_bias",
        "weight_decay",
        "blocks",
        "filters_0",
    }
    assert model.output_shape == (None, 1)
    assert find_head(model).prior == 0.3
    assert hypermodel.objective.name == "val_auc"


CONFIGS = {
    "plain": {},
    "scores": {"score": ThresholdMetric("cost", "best", cost_fp=1, cost_fn=9)},
    "criterion": {"score": Criterion("recall", min_precision=0.5)},
    "scaler": {"scaler": scaler_for(X), "prior": 0.25, "name": "tumours"},
    "space": {
        "space": {
            "hidden_units": [None, (8, 4)],
            "learning_rate": {"max_value": 0.5},
            "activation": ("relu", "tanh"),
            "class_weight": None,
        },
        "tune_batch_size": False,
    },
    "backbone": {"input_shape": (8, 8, 1), "backbone": convolutions},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_makes_the_same_space(name):
    arguments = {"input_shape": 3, **CONFIGS[name]}
    hypermodel = BinaryClassifierHyperModel(**arguments)
    config = json.loads(json.dumps(hypermodel.get_config()))
    again = BinaryClassifierHyperModel.from_config(config)
    assert again.project_name == hypermodel.project_name
    assert again.get_config() == hypermodel.get_config()
    assert again.objective == hypermodel.objective
    spaces = [
        {name: parameter.get_config() for name, parameter in searched(h).items()}
        for h in (hypermodel, again)
    ]
    assert spaces[0] == spaces[1]


def test_config_of_a_lambda_is_refused():
    hypermodel = BinaryClassifierHyperModel(3, backbone=lambda hp, inputs: inputs)
    with pytest.raises(ValueError, match="register_keras_serializable"):
        hypermodel.get_config()


def test_project_name_tells_spaces_apart():
    variants = [
        {},
        {"prior": 0.2},
        {"score": "best_f1"},
        {"space": {"activation": "relu"}},
        {"space": {"activation": ["relu", "gelu"]}},
        {"tune_batch_size": False},
        {"scaler": scaler_for(X)},
        {"scaler": scaler_for(X + 1)},
        {"backbone": lambda hp, inputs: keras.layers.Dense(hp.Int("n", 1, 4))(inputs)},
        {"backbone": lambda hp, inputs: keras.layers.Dense(hp.Int("n", 1, 5))(inputs)},
    ]
    names = [BinaryClassifierHyperModel(3, **variant).project_name for variant in variants]
    assert len(set(names)) == len(names)
    assert BinaryClassifierHyperModel(3).project_name == names[0]
    assert BinaryClassifierHyperModel(3, name="churn").project_name.startswith("churn-")


@pytest.mark.parametrize(
    ("score", "name", "direction"),
    [
        ("auc", "val_auc", "max"),
        ("pr_auc", "val_pr_auc", "max"),
        ("brier_score", "val_brier_score", "min"),
        ("expected_calibration_error", "val_expected_calibration_error", "min"),
        ("f1", "val_f1", "max"),
        ("best_mcc", "val_best_mcc", "max"),
        (ThresholdMetric("cost", "best", cost_fp=1, cost_fn=2), "val_best_cost", "min"),
        (Criterion("cost", cost_fp=1, cost_fn=2), "val_best_cost", "min"),
        (BinaryAUC(name="area"), "val_area", "max"),
    ],
)
def test_objective_and_metrics_follow_the_score(score, name, direction):
    hypermodel = BinaryClassifierHyperModel(2, score=score)
    assert (hypermodel.objective.name, hypermodel.objective.direction) == (name, direction)
    names = metric_names(hypermodel.build(keras_tuner.HyperParameters()))
    assert name.removeprefix("val_") in names
    assert {"accuracy", "auc", "pr_auc", "best_f1", "best_threshold", "loss"} <= names


def test_threshold_of_a_trial_is_the_best_for_its_score():
    """Where missing a positive costs much, the threshold that trials carry is a low one."""
    from keras_binclf.tuner.trial.objective import make_metrics

    y = np.array([0, 1, 0, 1, 0, 0, 1, 0])
    p = np.array([0.1, 0.2, 0.3, 0.6, 0.65, 0.4, 0.9, 0.15])
    score = ThresholdMetric("cost", "best", cost_fp=1, cost_fn=100)
    chosen = next(m for m in make_metrics(score) if isinstance(m, BestThreshold))
    chosen.update_state(y, p)
    assert 0.15 < float(chosen.result()) < 0.2


def test_criterion_is_the_metric_at_the_best_threshold():
    given = {"cost_fp": 1, "cost_fn": 2, "min_recall": 0.9}
    metric = ThresholdMetric("cost", "best", **given)
    one, other = (
        BinaryClassifierHyperModel(2, score=score) for score in (Criterion("cost", **given), metric)
    )
    assert one.get_config() == other.get_config()
    assert one.project_name == other.project_name


def test_untunable_space_adds_nothing_and_takes_defaults():
    hypermodel = BinaryClassifierHyperModel(3, tunable=False)
    hp = keras_tuner.HyperParameters()
    assert widths(hypermodel.build(hp)) == (64, 32)
    assert not hp.space


def test_optuna_chooses_from_the_same_space():
    optuna = pytest.importorskip("optuna")
    hypermodel = BinaryClassifierHyperModel(
        3, space={"units": {"min_value": 8, "max_value": 64}, "epochs": 3}
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        hp = hypermodel.suggest(trial)
        assert hp.values == trial.params
        assert set(hp.values) == expected_names(hp.values, prior=False)
        study.tell(trial, 0.0)
    seen = [t.params["learning_rate"] for t in study.trials]
    assert 1e-4 <= min(seen) < 5e-4 < 3e-3 < max(seen) <= 1e-2


def test_optuna_chooses_for_a_backbone_too():
    optuna = pytest.importorskip("optuna")
    hypermodel = BinaryClassifierHyperModel((8, 8, 1), backbone=convolutions)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(6):
        hp = hypermodel.suggest(study.ask())
        filters = [name for name in hp.values if name.startswith("filters")]
        assert len(filters) == hp.get("blocks")


@once
def test_largest_point_has_the_most_weights():
    from keras_binclf.tuner.space.points import find_largest
    from keras_binclf.tuner.trial.model import count_weights

    space = {"num_layers": [1, 2], "units": [8, 16], "activation": "relu"}
    hypermodel = BinaryClassifierHyperModel(3, space=space)
    sizes = []
    for number, units, shape, residual, norm in itertools.product(
        (1, 2),
        (8, 16),
        ("halving", "constant", "doubling"),
        (False, True),
        ("none", "batch", "layer", "rms"),
    ):
        hp = keras_tuner.HyperParameters()
        hp.values = {
            "num_layers": number,
            "units": units,
            "residual": residual,
            "normalization": norm,
            **({"width_shape": shape} if number > 1 else {}),
        }
        sizes.append(count_weights(hypermodel.build(hp)))
    hp = keras_tuner.HyperParameters()
    hp.values = find_largest(hypermodel._domains)
    assert count_weights(hypermodel.build(hp)) == max(sizes)


def test_page_lists_the_hyperparameters_with_their_defaults():
    from keras_binclf.tuner.space.hyperparameters import PARAMETERS

    page = (Path(__file__).parent.parent / "docs" / "tuning.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| `?([^|`]+)`? \| [^|]*\|$", page, re.M)
    assert [name for name, _ in rows] == list(PARAMETERS)
    for name, default in rows:
        expected = PARAMETERS[name].domain.default
        assert default == (f'"{expected}"' if isinstance(expected, str) else str(expected))
