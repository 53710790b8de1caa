"""The figures of Adam show the values of the logger's history."""

import copy
import sys

import keras
import numpy as np
import pytest

from keras_binclf import AdamMomentLogger, binary_classifier, plots
from keras_binclf.callbacks.adam_moments.epoch_rows import RMS_RATIO_WARNING
from keras_binclf.plots import adam

# Figures show a logger's history, which is NumPy; test_adam_moment_logger.py tests the history.
pytestmark = pytest.mark.once
BIAS = "binary_head/bias"
FIELDS = ("gradient", "m", "v", "m_hat", "v_hat", "update")


def train(hidden_units, *loggers):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 3)).astype("float32")
    y = (x[:, 0] > 0).astype("float32")
    model = binary_classifier(3, hidden_units=hidden_units, metrics=None)
    # Compiling takes seconds, a run milliseconds.
    model.compile("adam", loss=model.loss, run_eagerly=True)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=list(loggers))


@pytest.fixture(scope="module")
def trained():
    """Loggers of six steps by name; "two runs" has seen a net of four variables, then of two."""
    loggers = {name: AdamMomentLogger(1) for name in ("2 variables", "4 variables", "20 variables")}
    for name, quantities in {"moments": FIELDS, "layers": ("update_ratio", "rms_ratio")}.items():
        loggers[name] = AdamMomentLogger(1, quantities=quantities)
    train(4, loggers["4 variables"])
    loggers["two runs"] = copy.deepcopy(loggers["4 variables"])
    train(None, *(loggers[name] for name in ("2 variables", "moments", "layers", "two runs")))
    train((4,) * 9, loggers["20 variables"])
    return loggers


@pytest.fixture
def logged(trained):
    """Function that gives a trained logger which the test may change."""
    return lambda name="2 variables": copy.deepcopy(trained[name])


def change(logger, column, values):
    """Overwrite logged values of a column, for all variables."""
    index = logger._memory.columns.index(column)
    for rows in logger._memory.rows.values():
        for row, value in zip(rows, values, strict=False):
            row[-1][index] = value


def line(axes, label):
    return next(item for item in axes.get_lines() if item.get_label() == label)


def draw(figure):
    """Draw a figure as a picture: some warnings and errors come only then."""
    assert figure._repr_png_().startswith(b"\x89PNG")
    return figure


def test_moments_are_those_of_the_history(logged):
    logger = logged()
    columns = logger.history[BIAS]
    first, second, update = draw(plots.plot_moments(logger, variable=BIAS)).axes
    expected = [
        (first, "gradient g", columns["gradient_mean"]),
        (first, "first moment m", columns["m_mean"]),
        (first, "bias-corrected m̂", columns["m_hat_mean"]),
        (second, "squared gradient g²", columns["gradient_rms"] ** 2),
        (second, "second moment v", columns["v_mean"]),
        (second, "bias-corrected v̂", columns["v_hat_mean"]),
        (update, "update Δw, mean", columns["update_mean"]),
    ]
    for axes, label, values in expected:
        np.testing.assert_array_equal(line(axes, label).get_ydata(), values)
        np.testing.assert_array_equal(line(axes, label).get_xdata(), columns["step"])
    band = update.collections[0].get_paths()[0].vertices
    assert np.isclose(band[:, 1].max(), columns["update_rms"].max())
    assert second.get_yscale() == "log"


def test_moments_have_a_title_and_labels_with_units(logged):
    figure = plots.plot_moments(logged(), BIAS)
    assert figure.get_suptitle() == BIAS
    labels = [axes.get_ylabel().split("\n")[1] for axes in figure.axes]
    assert labels == ["(loss / weight)", "(loss² / weight²)", "(units of the weight)"]
    assert figure.axes[-1].get_xlabel() == "step (optimizer.iterations)"


def test_legends_stand_beside_the_data(logged):
    figure = draw(plots.plot_moments(logged(), BIAS))
    for axes in figure.axes:
        assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


def test_variable_may_be_left_out_where_there_is_one(logged):
    logger = logged()
    del logger._memory.rows["binary_head/kernel"]
    assert plots.plot_moments(logger).get_suptitle() == BIAS
    with pytest.raises(ValueError, match=r"`variable` of plot_moments .*kernel, binary_head/bias"):
        plots.plot_moments(logged())


def test_unknown_variable_is_an_error_with_the_known_ones(logged):
    logger = logged()
    with pytest.raises(ValueError, match=r"\(binary_head/kernel, binary_head/bias\).*'bias'"):
        plots.plot_moments(logger, "bias")
    with pytest.raises(TypeError, match="`variable` of plot_moments must be the path"):
        plots.plot_moments(logger, 1)


@pytest.mark.parametrize("plot", [plots.plot_moments, plots.plot_layers])
def test_nothing_logged_is_an_error(plot):
    with pytest.raises(ValueError, match=r"`logger.history` of plot_\w+ must be not empty"):
        plot(AdamMomentLogger())
    with pytest.raises(TypeError, match=r"`logger` of plot_\w+ must be an AdamMomentLogger"):
        plot({})


def test_missing_quantities_are_named():
    logger = AdamMomentLogger(1, quantities=("gradient", "m", "v", "update", "rms_ratio"))
    with pytest.raises(ValueError, match="The figure shows 'm_hat', 'v_hat' too"):
        plots.plot_moments(logger, BIAS)
    with pytest.raises(ValueError, match="The figure shows 'update_ratio' too"):
        plots.plot_layers(logger)


def test_the_quantities_of_each_figure_are_enough(logged):
    assert plots.plot_moments(logged("moments"), BIAS)
    assert plots.plot_layers(logged("layers"))


@pytest.mark.parametrize("name", ["2 variables", "4 variables"])
def test_layers_are_those_of_the_history(logged, name):
    logger = logged(name)
    figure = draw(plots.plot_layers(logger))
    for axes, column in zip(figure.axes, ("update_ratio", "rms_ratio"), strict=True):
        assert axes.get_title(loc="left").startswith(column)
        for variable, columns in logger.history.items():
            np.testing.assert_array_equal(line(axes, variable).get_ydata(), columns[column])
    above, below = figure.axes
    assert above.get_yscale() == "log"
    assert set(line(above, "0.001, rule of thumb").get_ydata()) == {1e-3}
    assert set(line(below, "2.3, warning level").get_ydata()) == {RMS_RATIO_WARNING} == {2.3}
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [*logger.history, "0.001, rule of thumb", "2.3, warning level"]


def test_many_layers_are_rows_of_heat_maps(logged):
    logger = logged("20 variables")
    assert len(logger.history) == 20
    figure = draw(plots.plot_layers(logger))
    for axes, column in zip(figure.axes[:2], ("update_ratio", "rms_ratio"), strict=True):
        (mesh,) = axes.collections
        expected = np.stack([columns[column] for columns in logger.history.values()])
        shown = np.clip(expected, adam.SMALLEST, adam.LARGEST)
        np.testing.assert_array_equal(mesh.get_array(), shown)
        np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], np.arange(0.5, 7))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(logger.history)
    ratio, rms = (axes.collections[0] for axes in figure.axes[:2])
    assert np.isclose(ratio.norm(1e-3), 0.5)
    assert rms.norm.vmax == 2.3
    np.testing.assert_allclose(rms.cmap.get_over()[:3], (213 / 255, 94 / 255, 0))  # vermilion


# Each pair of a figure of the layers, a value and a number of steps.
@pytest.mark.parametrize(
    ("name", "value", "steps"),
    [
        ("2 variables", np.nan, 2),
        ("2 variables", np.inf, 6),
        ("2 variables", 0.0, 2),
        ("20 variables", np.nan, 6),
        ("20 variables", np.inf, 2),
        ("20 variables", 0.0, 6),
    ],
)
def test_steps_without_a_positive_number_are_drawn(logged, name, value, steps):
    """Of the six steps two, or all of them."""
    logger = logged(name)
    for column in logger._memory.columns:
        change(logger, column, [value] * steps)
    draw(plots.plot_moments(logger, BIAS))
    draw(plots.plot_layers(logger))


def test_infinite_values_leave_a_gap_in_a_line(logged):
    logger = logged()
    change(logger, "m_mean", [1.0, np.inf, 3.0])
    shown = line(plots.plot_moments(logger, BIAS).axes[0], "first moment m").get_ydata()
    np.testing.assert_array_equal(shown[:3], [1.0, np.nan, 3.0])


@pytest.mark.parametrize("name", ["2 variables", "20 variables"])
def test_a_single_step_is_seen(logged, name):
    logger = logged(name)
    for rows in logger._memory.rows.values():
        del rows[:-1]
    figure = draw(plots.plot_moments(logger, BIAS))
    assert line(figure.axes[0], "gradient g").get_marker() == "."
    draw(plots.plot_layers(logger))


def test_the_last_run_is_shown_unless_another_is_named(logged):
    logger = logged("two runs")
    for figures, run, other in (({}, 2, 1), ({"run": 1}, 1, 2), ({"run": 2}, 2, 1)):
        rows = logger.history[BIAS]["run"] == run
        assert rows.sum() == (logger.history[BIAS]["run"] == other).sum() == 6
        moments = plots.plot_moments(logger, BIAS, **figures)
        shown = line(moments.axes[0], "first moment m").get_ydata()
        np.testing.assert_array_equal(shown, logger.history[BIAS]["m_mean"][rows])
        layers = plots.plot_layers(logger, **figures)
        shown = line(layers.axes[1], BIAS).get_ydata()
        np.testing.assert_array_equal(shown, logger.history[BIAS]["rms_ratio"][rows])


def test_layers_of_one_run_are_those_of_its_model(logged):
    logger = logged("two runs")
    labels = [item.get_label() for item in plots.plot_layers(logger).axes[1].get_lines()]
    assert labels == ["binary_head/kernel", BIAS, "2.3, warning level"]


def test_unknown_run_is_an_error(logged):
    logger = logged()
    with pytest.raises(ValueError, match=r"one that was logged \(1\). Received: run=2"):
        plots.plot_layers(logger, run=2)
    with pytest.raises(TypeError, match="`run` of plot_moments must be an int of at least 1"):
        plots.plot_moments(logger, BIAS, run=True)


def test_steps_that_differ_between_variables_leave_gaps_in_a_heat_map():
    steps, values = adam._make_grid(
        {
            "a": {"step": np.array([1, 3]), "rms_ratio": np.array([1.0, 2.0])},
            "b": {"step": np.array([2, 3]), "rms_ratio": np.array([3.0, 4.0])},
        },
        "rms_ratio",
    )
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [[1, np.nan, 2], [np.nan, 3, 4]])


def test_nothing_global_changes(logged):
    """Keras imports pyplot where it is installed; its state must not change."""
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams), pyplot.get_fignums()
    logger = logged()
    draw(plots.plot_moments(logger, BIAS))
    draw(plots.plot_layers(logger))
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == before == (before[0], [])
    assert "pyplot" not in vars(adam)


def test_without_matplotlib_the_way_out_is_named(logged, monkeypatch):
    logger = logged()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-binclf\[plots\]"'):
        plots.plot_moments(logger, BIAS)


def test_drawing_leaves_the_logger_as_it_was(logged):
    logger = logged()
    before = logger.history
    draw(plots.plot_moments(logger, BIAS))
    draw(plots.plot_layers(logger))
    keras.tree.map_structure(np.testing.assert_array_equal, before, logger.history)
