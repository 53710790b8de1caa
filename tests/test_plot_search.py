"""The lines of a search are its trials: each crosses an axis where its value stands."""

import itertools
import math
import sys

import keras_tuner
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_binclf import BinaryClassifierHyperModel, plots

# No model is trained: the trials are written down.
pytestmark = pytest.mark.once
VERMILION = "#D55E00"
BELOW, BELOW_BAND = -0.15, 0.06


class Search(keras_tuner.RandomSearch):
    """A search whose trials are written down rather than trained."""

    def run_trial(self, *args, **kwargs):
        raise NotImplementedError


class HalvingSearch(keras_tuner.Hyperband):
    def run_trial(self, *args, **kwargs):
        raise NotImplementedError


def make_tuner(folder, declare, direction="max", name="val_auc", kind=Search, **options):
    """A tuner over the hyperparameters that `declare(hp)` makes."""
    space = keras_tuner.HyperParameters()
    declare(space)
    tuner = kind(
        objective=keras_tuner.Objective(name, direction),
        hyperparameters=space,
        directory=folder,
        overwrite=True,
        seed=1,
        **({"max_trials": 500} if kind is Search else {}),
        **options,
    )
    tuner.oracle.verbose = 0
    return tuner


def add(tuner, score, values=None, status="COMPLETED"):
    """A trial that ended with a score; its values are drawn unless they are given."""
    oracle = tuner.oracle
    trial = oracle.create_trial("tuner0")
    if values is not None:
        trial.hyperparameters.values = dict(values)
    score = score(trial.hyperparameters.values) if callable(score) else score
    oracle.update_trial(trial.trial_id, {oracle.objective.name: score})
    trial.status = status
    oracle.end_trial(trial)
    return trial


def heights(figure, trial=None):
    """Where the line of a trial crosses the axes; those of all trials as rows, if none is given."""
    lines = figure.axes[0].get_lines()
    if trial is None:
        return np.array([line.get_ydata() for line in lines])
    return next(x for x in lines if x.get_label() == f"trial {trial.trial_id}").get_ydata()


def labels(figure, place):
    """The labels beside or below an axis, from the bottom to the top; its name is the last one."""
    found = [text for text in figure.axes[0].texts if text.xy[0] == place]
    return [text.get_text() for text in sorted(found, key=lambda text: text.xy[1])]


def names(figure):
    places = range(len(figure.axes[0].get_lines()[0].get_xdata()) - 1)
    return [labels(figure, place)[-1] for place in places]


def strip(figure):
    """The axis of the objective."""
    return figure.axes[0].child_axes[0]


def draw(figure):
    """Draw all of it, so that what warns or fails only then does so here."""
    assert figure._repr_png_().startswith(b"\x89PNG")
    return figure


def declare_all_kinds(hp):
    hp.Float("rate", 1e-4, 1e-2, sampling="log")
    hp.Int("width", 10, 30)
    hp.Choice("shape", ["flat", "deep", "wide"])
    hp.Boolean("skip")
    hp.Choice("size", [64, 16, 32, 128])
    hp.Fixed("fixed", 3)


ROWS = [
    {"rate": 1e-3, "width": 15, "shape": "flat", "skip": True, "size": 64},
    {"rate": 1e-4, "width": 30, "shape": "deep", "skip": False, "size": 16},
    {"rate": 1e-2, "width": 10, "shape": "wide", "skip": True, "size": 128},
]
# Of the best, the second and the last trial: a place of n values is at (i + 1/2) / n, and spread
# over the smaller of 1 / (2 n) and 0.12 by rank.
PLACES = np.array(
    [
        [0.5, 0.25, 1 / 6 + 0.06, 0.75 + 0.06, 0.625 + 0.06],
        [0.0, 1.0, 3 / 6, 0.25, 0.125],
        [1.0, 0.0, 5 / 6 - 0.06, 0.75 - 0.06, 0.875 - 0.06],
    ]
)


@pytest.mark.parametrize(
    ("direction", "scores"), [("max", [0.9, 0.8, 0.5]), ("min", [0.5, 0.6, 0.9])]
)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[::2])
def test_lines_cross_the_axes_at_the_values_of_the_trials(tmp_path, direction, scores, order):
    tuner = make_tuner(tmp_path, declare_all_kinds, direction)
    trials = {rank: add(tuner, scores[rank], ROWS[rank]) for rank in order}
    figure = draw(plots.plot_search(tuner))
    for rank, last in enumerate([1.0, 0.75, 0.0]):
        expected = [*PLACES[rank], last]
        # The sums of two or three floats differ by a few roundings.
        np.testing.assert_allclose(heights(figure, trials[rank]), expected, atol=1e-12)
    assert names(figure) == ["rate", "width", "shape", "skip", "size"]


def test_values_are_written_beside_the_axes(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    add(tuner, 0.5, ROWS[0])
    figure = draw(plots.plot_search(tuner))
    assert [labels(figure, place)[:-1] for place in range(5)] == [
        ["0.0001", "0.001", "0.01"],
        ["10", "20", "30"],
        ["flat", "deep", "wide"],
        ["False", "True"],
        ["16", "32", "64", "128"],
    ]


@pytest.mark.parametrize(("direction", "better"), [("max", "higher"), ("min", "lower")])
def test_best_is_at_the_top_thick_vermilion_and_drawn_last(tmp_path, direction, better):
    tuner = make_tuner(tmp_path, declare_all_kinds, direction, "val_loss")
    trials = [add(tuner, score) for score in (0.3, 0.1, 0.7, 0.4)]
    best = trials[2 if direction == "max" else 1]
    figure = draw(plots.plot_search(tuner))
    lines = figure.axes[0].get_lines()
    assert lines[-1].get_label() == f"trial {best.trial_id}"
    assert lines[-1].get_color() == VERMILION
    assert all(lines[-1].get_zorder() > line.get_zorder() for line in lines[:-1])
    assert all(lines[-1].get_linewidth() > line.get_linewidth() for line in lines[:-1])
    scores = [line.get_ydata()[-1] for line in lines]
    assert scores == sorted(scores)
    assert (scores[0], scores[-1]) == (0.0, 1.0)
    ticks = [text.get_text() for text in strip(figure).get_yticklabels()]
    assert (ticks[0], ticks[-1]) == (("0.1", "0.7") if direction == "max" else ("0.7", "0.1"))
    assert strip(figure).get_ylabel() == f"val_loss ({better} is better)"
    assert figure.get_suptitle().endswith(f"trial {best.trial_id}, val_loss {best.score:g}")


def test_the_better_the_darker(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    for score in np.linspace(0.1, 0.9, 9):
        add(tuner, score)
    colours = [line.get_color()[:3] for line in plots.plot_search(tuner).axes[0].get_lines()[:-1]]
    luminances = np.array(colours) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminances) < 0).all()


@pytest.mark.parametrize("sampling", ["log", "reverse_log"])
def test_an_axis_has_the_scale_that_is_sampled_on(tmp_path, sampling):
    """Keras Tuner's own map of a value to the probability of what is below it."""
    tuner = make_tuner(tmp_path, lambda hp: hp.Float("rate", 0.002, 5.0, sampling=sampling))
    (entry,) = tuner.oracle.hyperparameters.space
    trials = [add(tuner, score, {"rate": score}) for score in (0.002, 0.03, 1.0, 4.5, 5.0)]
    figure = draw(plots.plot_search(tuner))
    for trial in trials:
        expected = entry.value_to_prob(trial.hyperparameters.values["rate"])
        # Other sums of logarithms of numbers of about 1.
        assert heights(figure, trial)[0] == pytest.approx(expected, abs=1e-9)
    middle = {"log": ["0.01", "0.1", "1"], "reverse_log": ["4.9"]}[sampling]
    assert labels(figure, 0) == ["0.002", *middle, "5", "rate"]


def test_a_short_logarithmic_range_has_a_label_in_the_middle(tmp_path):
    tuner = make_tuner(tmp_path, lambda hp: hp.Int("units", 20, 80, sampling="log"))
    trial = add(tuner, 0.5, {"units": 40})
    figure = plots.plot_search(tuner)
    assert labels(figure, 0) == ["20", "40", "80", "units"]
    assert heights(figure, trial)[0] == pytest.approx(0.5)


def test_steps_have_places_of_their_own(tmp_path):
    def declare(hp):
        hp.Int("layers", 0, 4)
        hp.Float("dropout", 0.0, 0.6, step=0.2)
        hp.Int("units", 8, 64, step=2, sampling="log")

    tuner = make_tuner(tmp_path, declare)
    values = {"layers": 3, "dropout": 0.2 + 0.2 + 0.2, "units": 16}
    assert values["dropout"] != 0.6
    trial = add(tuner, 0.5, values)
    figure = draw(plots.plot_search(tuner))
    np.testing.assert_allclose(heights(figure, trial)[:3], [3.5 / 5, 3.5 / 4, 1.5 / 4])
    assert labels(figure, 0)[:-1] == ["0", "1", "2", "3", "4"]
    assert labels(figure, 1)[:-1] == ["0", "0.2", "0.4", "0.6"]
    assert labels(figure, 2)[:-1] == ["8", "16", "32", "64"]


def declare_conditional(hp):
    hp.Choice("optimizer", ["adam", "adamw"])
    with hp.conditional_scope("optimizer", ["adamw"]):
        hp.Float("weight_decay", 1e-4, 1e-2, sampling="log")
    hp.Boolean("skip")


def test_what_is_not_used_stands_below(tmp_path):
    tuner = make_tuner(tmp_path, declare_conditional)
    best = add(tuner, 0.9, {"optimizer": "adam", "skip": False})
    middle = add(tuner, 0.8, {"optimizer": "adamw", "weight_decay": 1e-3, "skip": False})
    last = add(tuner, 0.7, {"optimizer": "adam", "skip": True})
    figure = draw(plots.plot_search(tuner))
    found = [heights(figure, trial)[1] for trial in (best, middle, last)]
    np.testing.assert_allclose(found, [BELOW + BELOW_BAND / 2, 0.5, BELOW - BELOW_BAND / 2])
    assert [labels(figure, place)[0] for place in range(3)] == ["adam", "not used", "False"]


def test_all_used_has_no_place_below(tmp_path):
    tuner = make_tuner(tmp_path, declare_conditional)
    add(tuner, 0.8, {"optimizer": "adamw", "weight_decay": 1e-3, "skip": False})
    figure = draw(plots.plot_search(tuner))
    assert "not used" not in [text.get_text() for text in figure.axes[0].texts]


def test_a_name_with_several_conditions_is_one_axis(tmp_path):
    def declare(hp):
        hp.Choice("model", ["small", "large"])
        with hp.conditional_scope("model", ["small"]):
            hp.Float("rate", 0.0, 1.0)
        with hp.conditional_scope("model", ["large"]):
            hp.Float("rate", 0.5, 2.0)

    tuner = make_tuner(tmp_path, declare)
    small, large = add(tuner, 0.9), add(tuner, 0.8)
    # Keras Tuner 1.4 forgets the value of the first one, as the condition of the other is not met.
    small.hyperparameters.values = {"model": "small", "rate": 0.5}
    large.hyperparameters.values = {"model": "large", "rate": 1.5}
    figure = draw(plots.plot_search(tuner))
    assert names(figure) == ["model", "rate"]
    assert [heights(figure, trial)[1] for trial in (small, large)] == [0.25, 0.75]


def test_values_out_of_the_space_have_a_place(tmp_path):
    """A search may be resumed with another space."""

    def declare(hp):
        hp.Float("rate", 1.0, 2.0)
        hp.Choice("shape", ["flat", "deep"])

    tuner = make_tuner(tmp_path, declare)
    outside = add(tuner, 0.9, {"rate": 5.0, "shape": "wide"})
    inside = add(tuner, 0.8, {"rate": 2.0, "shape": "flat"})
    figure = draw(plots.plot_search(tuner))
    np.testing.assert_allclose(heights(figure, outside)[:2], [1.0, 5 / 6 + 0.06])
    np.testing.assert_allclose(heights(figure, inside)[:2], [0.25, 1 / 6 - 0.06])


def test_lines_through_the_same_places_are_apart(tmp_path):
    tuner = make_tuner(tmp_path, declare_conditional)
    for score in range(30):
        add(tuner, score / 100, {"optimizer": "adam", "skip": False})
    rows = heights(draw(plots.plot_search(tuner)))
    # 30 lines on 0.06 of about four inches: half a point.
    assert (np.diff(rows, axis=0) > 0.002).all()
    assert (np.abs(rows[:, 0] - 0.25) <= 0.06 + 1e-12).all()


def test_drawing_twice_gives_the_same_and_changes_nothing(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    for score in (0.5, 0.5, 0.7):
        add(tuner, score)
    before = [trial.get_state() for trial in tuner.oracle.trials.values()]
    first, second = (draw(plots.plot_search(tuner)) for _ in range(2))
    np.testing.assert_array_equal(heights(first), heights(second))
    assert first._repr_png_() == second._repr_png_()
    assert [trial.get_state() for trial in tuner.oracle.trials.values()] == before


def test_hyperband_draws_the_trials_of_all_rounds(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds, kind=HalvingSearch, max_epochs=8, factor=2)
    epochs = set()
    for number in range(12):
        values = add(tuner, number / 100).hyperparameters.values
        epochs.add(values["tuner/epochs"])
    assert len(epochs) > 1
    figure = draw(plots.plot_search(tuner))
    assert len(figure.axes[0].get_lines()) == 12
    assert names(figure) == ["rate", "width", "shape", "skip", "size"]


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize(("score", "label"), [(0.0, "0"), (0.25, "0.25"), (-3e7, "-3e7")])
def test_a_single_trial_ends_in_the_middle(tmp_path, direction, score, label):
    tuner = make_tuner(tmp_path, declare_all_kinds, direction)
    trial = add(tuner, score, ROWS[0])
    figure = draw(plots.plot_search(tuner))
    expected = [0.5, 0.25, 1 / 6, 0.75, 0.625, 0.5]
    np.testing.assert_allclose(heights(figure, trial), expected, atol=1e-12)
    assert [text.get_text() for text in strip(figure).get_yticklabels()] == [label]
    assert figure.get_suptitle().startswith("1 trial; the best")


def test_equal_scores_end_in_the_middle(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    for _ in range(3):
        add(tuner, 0.5)
    assert heights(draw(plots.plot_search(tuner)))[:, -1] == pytest.approx([0.5] * 3)


def test_close_scores_have_labels_that_differ(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    for score in (0.912341, 0.912342, 0.912345):
        add(tuner, score)
    ticks = [text.get_text() for text in strip(draw(plots.plot_search(tuner))).get_yticklabels()]
    assert len(set(ticks)) == len(ticks) > 2
    assert (ticks[0], ticks[-1]) == ("0.912341", "0.912345")


@pytest.mark.parametrize(("direction", "worst"), [("max", -math.inf), ("min", math.inf)])
def test_a_score_that_is_not_finite_stands_below(tmp_path, direction, worst):
    tuner = make_tuner(tmp_path, declare_all_kinds, direction)
    for score in (0.5, 0.7, 0.6):
        add(tuner, score)
    trial = add(tuner, worst)
    figure = draw(plots.plot_search(tuner))
    assert heights(figure, trial)[-1] == pytest.approx(BELOW - BELOW_BAND / 2)
    assert labels(figure, 5) == ["not finite"]
    assert figure.axes[0].get_lines()[0].get_linestyle() == "--"
    assert sorted(heights(figure)[1:, -1]) == pytest.approx([0.0, 0.5, 1.0])


def test_only_completed_trials_are_drawn(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    completed = add(tuner, 0.5)
    add(tuner, 0.9, status="FAILED")
    tuner.oracle.create_trial("tuner0")
    (line,) = draw(plots.plot_search(tuner)).axes[0].get_lines()
    assert line.get_label() == f"trial {completed.trial_id}"
    assert plots.plot_search(tuner).get_suptitle().startswith("1 of 3 trials; the best")


def extents(figure):
    """Where each text is, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    title = figure.texts
    texts = [
        *title,
        *figure.axes[0].texts,
        *strip(figure).get_yticklabels(),
        strip(figure).yaxis.label,
    ]
    return {text: text.get_window_extent(renderer) for text in texts}


def fill(folder, hypermodel, number, score):
    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=500, directory=folder, seed=1
    )
    tuner.oracle.verbose = 0
    for _ in range(number):
        add(tuner, score)
    return tuner


@pytest.mark.parametrize(
    ("space", "hyperparameters"),
    [
        ({}, None),
        ({}, ["learning_rate"]),
        ({"hidden_units": [(512, 256, 128, 64, 32, 16, 8), None, (8,)]}, None),
    ],
    ids=["14 axes", "1 axis", "long labels"],
)
def test_no_label_touches_another_or_is_cut_off(tmp_path, space, hyperparameters):
    hypermodel = BinaryClassifierHyperModel(
        8, prior=0.2, space=space, score="expected_calibration_error"
    )
    tuner = fill(tmp_path, hypermodel, 30, lambda v: -math.log(v["learning_rate"]))
    figure = draw(plots.plot_search(tuner, hyperparameters=hyperparameters))
    assert len(names(figure)) == (len(hyperparameters) if hyperparameters else 14 - 2 * len(space))
    assert len(figure.axes[0].get_lines()) == 30
    boxes = extents(figure)
    (title,) = (box for text, box in boxes.items() if text.get_text() == figure.get_suptitle())
    for box in boxes.values():
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    level = [(text, box) for text, box in boxes.items() if text.get_rotation() != 30.0]
    assert len(level) > 5
    for (one, box), (other, another) in itertools.combinations(level, 2):
        assert not box.overlaps(another), (one, other)
    assert sum(box.overlaps(title) for box in boxes.values()) == 1  # itself


def test_width_grows_with_the_number_of_axes(tmp_path):
    tuner = make_tuner(tmp_path, lambda hp: [hp.Float(f"h{i}", 0.0, 1.0) for i in range(20)])
    add(tuner, 0.5)
    chosen = [[f"h{i}" for i in range(number)] for number in (4, 10, 20)]
    widths = [plots.plot_search(tuner, hyperparameters=c).get_figwidth() for c in chosen]
    assert np.diff(widths) == pytest.approx([6.0, 10.0])


def test_long_names_and_signs_of_formulas_are_written_as_they_are(tmp_path):
    long = "a$b$_" * 20
    tuner = make_tuner(tmp_path, lambda hp: hp.Choice("x$y$", [long, "short"]), name="val_$a$")
    add(tuner, 0.5, {"x$y$": long})
    figure = draw(plots.plot_search(tuner))
    assert labels(figure, 0) == ["a$b$_a$b$_a…a$b$_a$b$_", "short", "x$y$"]


def test_an_axis_of_many_choices_has_labels_at_some(tmp_path):
    tuner = make_tuner(tmp_path, lambda hp: hp.Choice("seed", list(range(100))))
    trial = add(tuner, 0.5, {"seed": 42})
    figure = draw(plots.plot_search(tuner))
    assert labels(figure, 0)[:-1] == [str(seed) for seed in range(0, 100, 7)]
    assert heights(figure, trial)[0] == pytest.approx(0.425)


def test_hyperparameters_are_drawn_in_the_order_given(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    trial = add(tuner, 0.5, ROWS[0])
    for given in (["skip", "rate"], ("skip", "rate"), np.array(["skip", "rate"])):
        figure = draw(plots.plot_search(tuner, hyperparameters=given))
        assert names(figure) == ["skip", "rate"]
        assert heights(figure, trial) == pytest.approx([0.75, 0.5, 0.5])


def test_unknown_hyperparameter_is_an_error_with_the_known_ones(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    add(tuner, 0.5)
    known = r"\(rate, width, shape, skip, size\)"
    with pytest.raises(ValueError, match=rf"`hyperparameters` .*{known}.* mean 'width'\?$"):
        plots.plot_search(tuner, hyperparameters=["rate", "widths"])
    for given in (["fixed"], ["tuner/epochs"], [], ["rate", "rate"]):
        with pytest.raises(
            ValueError, match=rf"`hyperparameters` of plot_search must be .*{known}"
        ):
            plots.plot_search(tuner, hyperparameters=given)


@pytest.mark.parametrize("given", ["rate", 3, [1], {"rate": 1}])
def test_hyperparameters_of_another_kind_are_an_error(tmp_path, given):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    add(tuner, 0.5)
    with pytest.raises(TypeError, match="`hyperparameters` of plot_search must be a list of names"):
        plots.plot_search(tuner, hyperparameters=given)


def test_a_search_without_a_completed_trial_is_an_error(tmp_path):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    with pytest.raises(
        ValueError, match=r"must have a completed trial .* Received: no trial\. Call"
    ):
        plots.plot_search(tuner)
    add(tuner, 0.5, status="FAILED")
    add(tuner, -math.inf)
    with pytest.raises(ValueError, match=r"finite score\. Received: 1 COMPLETED, 1 FAILED\. Call"):
        plots.plot_search(tuner)


def test_a_search_over_nothing_is_an_error(tmp_path):
    tuner = make_tuner(tmp_path, lambda hp: hp.Fixed("fixed", 3))
    add(tuner, 0.5, {"fixed": 3})
    with pytest.raises(ValueError, match="`tuner` of plot_search must search a hyperparameter"):
        plots.plot_search(tuner)


@pytest.mark.parametrize("thing", [None, 3, "search", keras_tuner.HyperParameters()])
def test_no_tuner_is_an_error(thing):
    with pytest.raises(TypeError, match="`tuner` of plot_search must be a Keras Tuner tuner"):
        plots.plot_search(thing)


def test_without_matplotlib_the_way_out_is_named(tmp_path, monkeypatch):
    tuner = make_tuner(tmp_path, declare_all_kinds)
    add(tuner, 0.5)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-binclf\[plots\]"'):
        plots.plot_search(tuner)


def test_nothing_global_changes(tmp_path):
    import matplotlib
    from matplotlib import pyplot

    tuner = make_tuner(tmp_path, declare_all_kinds)
    add(tuner, 0.5)
    before = dict(matplotlib.rcParams), pyplot.get_fignums()
    draw(plots.plot_search(tuner))
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == before == (before[0], [])
    assert "pyplot" not in vars(plots.search)


def test_a_search_made_again_from_its_folder_gives_the_same_lines(tmp_path):
    tuner = make_tuner(tmp_path, declare_conditional)
    for score in (0.5, 0.6, 0.7, 0.8):
        add(tuner, score)
    tuner.save()
    again = Search(
        objective=keras_tuner.Objective("val_auc", "max"), max_trials=500, directory=tmp_path
    )
    figures = [draw(plots.plot_search(each)) for each in (tuner, again)]
    np.testing.assert_array_equal(*map(heights, figures))
