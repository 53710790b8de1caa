"""Figures of the moments, updates and ratios that `AdamMomentLogger` has logged."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_binclf._validation import check_integer_at_least, error_message
from keras_binclf.callbacks import AdamMomentLogger
from keras_binclf.callbacks.adam_moments.epoch_rows import RMS_RATIO_WARNING
from keras_binclf.plots._figure import (
    BLACK,
    BLUE,
    COLOURS,
    GREY,
    SKY_BLUE,
    VERMILION,
    make_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, np.ndarray]

UPDATE_RATIO = 1e-3
"""Rule of thumb for the norm of an update divided by that of the weights (see `plot_layers`)."""

MOST_LINES = 7
"""Largest number of variables that are drawn as lines; more are rows of heat maps."""

LARGEST, SMALLEST = 1e30, 1e-30
"""Values that replace infinity and 0 in a heat map; NaN is grey."""

MOMENTS = ("gradient", "m", "v", "m_hat", "v_hat", "update")
STEP_LABEL = "step (optimizer.iterations)"


def plot_moments(
    logger: AdamMomentLogger, variable: str | None = None, *, run: int | None = None
) -> "Figure":
    """Draw the gradient of one variable, its moments and its updates over the steps.

    Use it to see why a variable moves as it does. The first of three panels shows the gradient, its
    running mean `m` and the bias-corrected `m̂`; the second the squared gradient, its running mean
    `v` and the bias-corrected `v̂`, on a logarithmic axis; the third the update `w_t − w_{t−1}`. For
    a variable with several entries, the lines are means over the entries. Moments are running
    means, so the line of `m` is the running mean of the line of the gradient, and that of `v` of
    the squared gradient. The band in the third panel is ± the root mean square of the entries,
    which shows the size of the steps where their signs cancel.

    Values that are not finite leave gaps. The state of `matplotlib.pyplot` is not used or changed.

    Args:
        logger: `AdamMomentLogger` that has watched a training, with the quantities `gradient`, `m`,
            `v`, `m_hat`, `v_hat` and `update`.
        variable: str, a key of `logger.history`; `None` where there is only one. Defaults to
            `None`.
        run: int, number of a training as in `logger.history[variable]["run"]`; `None` for the last
            one. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: for an argument of the wrong kind.
        ValueError: if nothing was logged, if there is no such variable or run, or if the logger
            does not log one of the quantities.

    Example:

    ```python
    import numpy as np
    from keras_binclf import AdamMomentLogger, binary_classifier, plots

    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("float32")
    logger = AdamMomentLogger(every_n_steps=1, variables="binary_head/bias")
    binary_classifier(4).fit(x, y, verbose=0, callbacks=[logger])

    figure = plots.plot_moments(logger)
    assert len(figure.axes) == 3
    figure.savefig("moments.png")
    ```

    References:
        - The moments: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1.
    """
    owner = "plot_moments"
    history = _check_logger(logger, owner, MOMENTS)
    variable = _check_variable(variable, owner, history)
    columns = _pick_run(history[variable], _check_run(run, owner, history[variable]["run"]))
    figure = make_figure(8.0, 7.5)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    figure.suptitle(variable)
    _draw_first_moment(top, columns)
    _draw_second_moment(middle, columns)
    _draw_update(bottom, columns)
    bottom.set_xlabel(STEP_LABEL)
    return figure


def plot_layers(logger: AdamMomentLogger, *, run: int | None = None) -> "Figure":
    """Draw `update_ratio` and `rms_ratio` of all variables, to compare layers.

    Use it to find the layers that learn too fast, too slowly or not at all. The first of two panels
    shows `update_ratio`, the norm of the update divided by that of the weights, with a line at
    0.001, a rule of thumb for kernels. The second shows `rms_ratio`, the gradient divided by its
    running root mean square, with a line at 2.3: higher values came before loss spikes. A variable
    of few entries (a bias) exceeds it by chance.

    Each variable has a line. More than 7 variables are rows of two heat maps, in which 0.001 has
    the middle colour, and values above 2.3 are vermilion. NaN is a gap in a line and grey in a heat
    map. The state of `matplotlib.pyplot` is not used or changed.

    Args:
        logger: `AdamMomentLogger` that has watched a training, with the quantities `update_ratio`
            and `rms_ratio`.
        run: int, number of a training as in `logger.history[variable]["run"]`; `None` for the last
            one. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: for an argument of the wrong kind.
        ValueError: if nothing was logged, if there is no such run, or if the logger does not log
            one of the quantities.

    Example:

    ```python
    import numpy as np
    from keras_binclf import AdamMomentLogger, binary_classifier, plots

    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("float32")
    logger = AdamMomentLogger(every_n_steps=1)
    binary_classifier(4).fit(x, y, verbose=0, callbacks=[logger])

    figure = plots.plot_layers(logger)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    figure.savefig("layers.png")
    ```

    References:
        - 0.001: Karpathy, CS231n, "Ratio of weights:updates",
          https://cs231n.github.io/neural-networks-3/#ratio.
        - 2.3: Wortsman et al., 2023, https://arxiv.org/abs/2304.13013, section 3.
    """
    owner = "plot_layers"
    history = _check_logger(logger, owner, ("update_ratio", "rms_ratio"))
    run = _check_run(run, owner, np.concatenate([rows["run"] for rows in history.values()]))
    chosen = {
        variable: _pick_run(columns, run)
        for variable, columns in history.items()
        if run in columns["run"]
    }
    return _draw_lines(chosen) if len(chosen) <= MOST_LINES else _draw_heat_maps(chosen)


TITLES = {
    "update_ratio": "update_ratio: norm of the update ÷ norm of the weights",
    "rms_ratio": "rms_ratio: gradient ÷ its running root mean square",
}


def _draw_first_moment(axes: "Axes", columns: Columns) -> None:
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    _draw_line(axes, columns, "gradient_mean", "gradient g", GREY, linewidth=0.8)
    _draw_line(axes, columns, "m_mean", "first moment m", BLUE)
    _draw_line(axes, columns, "m_hat_mean", "bias-corrected m̂", VERMILION, linestyle="--")
    axes.set_ylabel("mean\n(loss / weight)")
    _add_legend(axes)


def _draw_second_moment(axes: "Axes", columns: Columns) -> None:
    with np.errstate(over="ignore"):
        columns = {**columns, "square": columns["gradient_rms"] ** 2}
    _draw_line(axes, columns, "square", "squared gradient g²", GREY, linewidth=0.8)
    _draw_line(axes, columns, "v_mean", "second moment v", BLUE)
    _draw_line(axes, columns, "v_hat_mean", "bias-corrected v̂", VERMILION, linestyle="--")
    _set_log_scale(axes, columns["square"], columns["v_mean"], columns["v_hat_mean"])
    axes.set_ylabel("mean\n(loss² / weight²)")
    _add_legend(axes)


def _draw_update(axes: "Axes", columns: Columns) -> None:
    size = _hide_infinite(columns["update_rms"])
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.fill_between(
        columns["step"], -size, size, color=SKY_BLUE, alpha=0.35, linewidth=0, label="± rms"
    )
    _draw_line(axes, columns, "update_mean", "update Δw, mean", BLUE)
    axes.set_ylabel("update\n(units of the weight)")
    _add_legend(axes)


def _draw_lines(history: Mapping[str, Columns]) -> "Figure":
    figure = make_figure(9.0, 6.0)
    for axes, column in zip(figure.subplots(2, 1, sharex=True), TITLES, strict=True):
        for colour, (variable, columns) in zip(COLOURS, history.items(), strict=False):
            _draw_line(axes, columns, column, variable, colour, linewidth=1.2)
        axes.set_title(TITLES[column], loc="left")
    above, below = figure.axes
    _set_log_scale(above, *(columns["update_ratio"] for columns in history.values()))
    above.axhline(UPDATE_RATIO, color=BLACK, linestyle=":", label="0.001, rule of thumb")
    below.axhline(RMS_RATIO_WARNING, color=BLACK, linestyle="--", label="2.3, warning level")
    below.set_ylim(bottom=0.0)
    below.set_xlabel(STEP_LABEL)
    lines = [*above.get_lines(), below.get_lines()[-1]]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_heat_maps(history: Mapping[str, Columns]) -> "Figure":
    from matplotlib import colormaps, colors

    ratio_norm = colors.LogNorm(UPDATE_RATIO / 100, UPDATE_RATIO * 100)
    rms_norm = colors.Normalize(0.0, RMS_RATIO_WARNING)
    rms_map = colormaps["cividis"].with_extremes(over=VERMILION, bad=GREY)
    ratio_map = colormaps["PuOr_r"].with_extremes(bad=GREY)
    figure = make_figure(11.0, 2.2 + 0.24 * len(history))
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_heat_map(left, history, "update_ratio", ratio_norm, ratio_map, "both")
    _draw_heat_map(right, history, "rms_ratio", rms_norm, rms_map, "max")
    left.set_yticks(range(len(history)), list(history))
    left.invert_yaxis()
    return figure


def _draw_heat_map(
    axes: "Axes",
    history: Mapping[str, Columns],
    column: str,
    norm: Any,
    colours: Any,
    extend: str,
) -> None:
    steps, values = _make_grid(history, column)
    # A mesh leaves infinite values out, and a logarithmic scale leaves out 0.
    values = np.clip(values, SMALLEST, LARGEST)
    rows = np.arange(len(history) + 1) - 0.5
    edges = _find_edges(steps)
    mesh = axes.pcolormesh(edges, rows, values, norm=norm, cmap=colours, rasterized=True)
    axes.set_title(TITLES[column].replace(": ", ":\n"), loc="left")
    axes.set_xlabel(STEP_LABEL)
    bar = axes.figure.colorbar(mesh, ax=axes, location="bottom", extend=extend, aspect=30, pad=0.01)
    if column == "rms_ratio":
        bar.set_ticks([0.0, 0.5, 1.0, 1.5, 2.0, RMS_RATIO_WARNING])
        bar.set_label("above 2.3: warning level (grey: no number)")
    else:
        bar.set_label("0.001: rule of thumb (grey: no number)")


def _make_grid(history: Mapping[str, Columns], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all steps in order, and a row of values for each variable; NaN where it has none."""
    steps = np.unique(np.concatenate([columns["step"] for columns in history.values()]))
    values = np.full((len(history), len(steps)), np.nan)
    for row, columns in zip(values, history.values(), strict=True):
        row[np.searchsorted(steps, columns["step"])] = columns[column]
    return steps, values


def _find_edges(steps: np.ndarray) -> np.ndarray:
    """Return where the cell of each step begins and ends: halfway to its neighbours."""
    gaps = np.diff(steps) / 2 if len(steps) > 1 else np.array([0.5])
    inner = steps[:-1] + gaps if len(steps) > 1 else np.empty(0)
    return np.concatenate([[steps[0] - gaps[0]], inner, [steps[-1] + gaps[-1]]])


def _draw_line(
    axes: "Axes", columns: Columns, name: str, label: str, colour: str, **options: Any
) -> None:
    # A line through a single step is invisible: it needs a marker.
    marker = "." if np.isfinite(columns[name]).sum() < 2 else ""
    values = _hide_infinite(columns[name])
    axes.plot(columns["step"], values, label=label, color=colour, marker=marker, **options)


def _hide_infinite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _set_log_scale(axes: "Axes", *values: np.ndarray) -> None:
    """Make the axis logarithmic, if there is a positive value to show on it."""
    if any(np.any(np.isfinite(x) & (x > 0)) for x in values):
        axes.set_yscale("log")


def _add_legend(axes: "Axes") -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _check_logger(logger: Any, owner: str, quantities: Sequence[str]) -> dict[str, Any]:
    """Return the history, if it has the quantities of a figure."""
    if not isinstance(logger, AdamMomentLogger):
        raise TypeError(error_message("logger", owner, "an AdamMomentLogger", logger))
    missing = [name for name in quantities if name not in logger.quantities]
    if missing:
        names = ", ".join(map(repr, missing))
        hint = f"The figure shows {names} too: give `quantities` of AdamMomentLogger all of them."
        expected = f"a tuple with {', '.join(map(repr, quantities))}"
        raise ValueError(
            error_message("logger.quantities", owner, expected, logger.quantities, hint)
        )
    history = logger.history
    if not history:
        hint = "Train with the logger among the callbacks, for at least one step that it logs."
        raise ValueError(error_message("logger.history", owner, "not empty", history, hint))
    return history


def _check_variable(variable: Any, owner: str, history: Mapping[str, Columns]) -> str:
    if variable is None and len(history) == 1:
        return next(iter(history))
    expected = f"the path of a variable that was logged ({', '.join(history)})"
    if variable is not None and not isinstance(variable, str):
        raise TypeError(error_message("variable", owner, expected, variable))
    if variable not in history:
        raise ValueError(error_message("variable", owner, expected, variable))
    return str(variable)


def _check_run(run: Any, owner: str, runs: np.ndarray) -> int:
    if run is None:
        return int(runs.max())
    number = check_integer_at_least(run, 1, "run", owner)
    if number not in runs:
        expected = f"one that was logged ({', '.join(map(str, np.unique(runs)))})"
        raise ValueError(error_message("run", owner, expected, run))
    return number


def _pick_run(columns: Columns, run: int) -> dict[str, np.ndarray]:
    rows = columns["run"] == run
    return {name: values[rows] for name, values in columns.items()}
