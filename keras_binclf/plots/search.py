"""A picture of a search: the scores of the trials beside their hyperparameters."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_binclf._validation import error_message, suggest_nearest, to_list
from keras_binclf.plots._figure import BLACK, GREY, VERMILION, make_figure
from keras_binclf.plots._scales import (
    CLOSEST,
    Categories,
    Numbers,
    Scale,
    make_scale,
    write_number,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

BELOW = -0.15
"""Height of missing values, below the axes, which go from 0 to 1."""

BELOW_BAND = 0.06
"""Height that the lines through it are spread over."""

BOOKKEEPING = "tuner/"
"""Prefix of the names under which Keras Tuner's Hyperband stores its own state."""

LIGHT_GREY, DARK_GREY = "#E0E0E0", "#666666"
FONT_SIZE = 9.0
INCHES_PER_CHARACTER = 0.075
STRIP_WIDTH = 0.14

FEW_TRIALS = 60
"""Number of trials of which the lines may be a little thicker."""


def plot_search(tuner: Any, *, hyperparameters: Sequence[str] | None = None) -> "Figure":
    """Draw all trials of a search, to see which hyperparameters its score depends on.

    The picture has parallel coordinates: each completed trial is a line, which crosses the axis of
    each hyperparameter at its value and ends at its score. Where lines of one colour cross an axis
    close together, that hyperparameter matters, and if they do so at an end, the space should go
    further there. Where colours mix, it hardly does, or less than others. A search of few trials
    shows such patterns by chance too.

    The better the score, the darker the line, and the best trial is thick and vermilion. The best
    score is at the top, also where lower is better. A range has the scale that its values are
    sampled on; choices, and ranges of at most 12 values, have a place for each value. The lines
    through such a place are spread by the rank of their trials, the best one uppermost. Below the
    axis are hyperparameters that a trial did not use, and scores that are not finite. Fixed values,
    and those that Keras Tuner stores for itself (`tuner/epochs`), have no axis. Of a
    `Hyperband` the trials of all rounds are drawn, though a score after few epochs says less.

    Nothing of `matplotlib.pyplot` is used or changed.

    Args:
        tuner: a Keras Tuner `Tuner`, after or during a search, or made again in its folder.
        hyperparameters: names of the hyperparameters to draw, in that order; `None` for all that
            were searched, in the order of the space. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: for anything that is no tuner, on a worker of a distributed search, and if
            `hyperparameters` is no sequence of strings.
        ValueError: if no trial was completed with a finite score, if no hyperparameter was
            searched, or for a name that was not.

    Example:

    ```python
    import keras_tuner
    import numpy as np
    from keras_binclf import BinaryClassifierHyperModel, plots

    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    y = (x[:, 0] > 0.5).astype("float32")
    hypermodel = BinaryClassifierHyperModel(3)
    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=3, directory="search",
        project_name=hypermodel.project_name, overwrite=True,
    )
    tuner.search(x[:100], y[:100], validation_data=(x[100:], y[100:]), epochs=1, verbose=0)

    figure = plots.plot_search(tuner, hyperparameters=["num_layers", "learning_rate"])
    assert len(figure.axes[0].get_lines()) == 3
    figure.savefig("search.png")
    ```

    References:
        Inselberg, 1985, "The plane with parallel coordinates",
        https://doi.org/10.1007/BF01898350.
    """
    owner = "plot_search"
    trials, total = _list_completed(tuner, owner)
    objective = tuner.oracle.objective
    scales = _make_scales(tuner, trials, hyperparameters, owner)
    scores = _make_score_scale(trials)
    margin, distance, rotation = _find_layout(scales)
    height = 5.5 + (0.04 * max(map(len, scales)) if rotation else 0.0)
    figure = make_figure(margin + distance * len(scales) + 1.7, height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.05, len(scales) + STRIP_WIDTH), ylim=(0.0, 1.0))
    colours = _make_colours()
    for place, (name, scale) in enumerate(scales.items()):
        _draw_scale(axes, place, scale)
        if any(_is_unused(trial, name) for trial in trials):
            _draw_below(axes, place, "not used")
    _draw_names(axes, scales, rotation)
    _draw_scores(axes, len(scales), scores, objective, trials, colours)
    _draw_trials(axes, trials, scales, scores, colours)
    title = _describe(trials, total, scores, objective.name)
    is_long = INCHES_PER_CHARACTER * 1.4 * len(title) > figure.get_figwidth()
    figure.suptitle(title.replace("; ", "\n") if is_long else title, parse_math=False)
    return figure


def _list_completed(tuner: Any, owner: str) -> tuple[list[Any], int]:
    """Return the completed trials, the best one first, and the number of all."""
    # Keras Tuner takes long to import; whoever has a tuner has done so.
    from keras_binclf.tuner.search.results import COMPLETED, list_trials

    trials = list_trials(tuner, owner)
    completed = [trial for trial in trials if trial.status == COMPLETED]
    if not any(math.isfinite(trial.score) for trial in completed):
        counts = Counter(trial.status for trial in trials)
        found = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no trial"
        raise ValueError(
            f"`tuner` of {owner} must have a completed trial with a finite score. Received: "
            f"{found}. Call `tuner.search`, or make the tuner in the folder of the search."
        )
    return completed, len(trials)


def _make_scales(
    tuner: Any, trials: Sequence[Any], hyperparameters: Any, owner: str
) -> dict[str, Scale]:
    """Return the axis of each hyperparameter that is drawn, by name."""
    entries: dict[str, list[Any]] = {}
    for entry in tuner.oracle.hyperparameters.space:
        if not entry.name.startswith(BOOKKEEPING):
            entries.setdefault(entry.name, []).append(entry)
    searched = [name for name, same in entries.items() if not all(map(_is_fixed, same))]
    return {
        name: make_scale(
            entries[name],
            [t.hyperparameters.values[name] for t in trials if not _is_unused(t, name)],
        )
        for name in _choose_names(hyperparameters, searched, owner)
    }


def _is_fixed(entry: Any) -> bool:
    return type(entry).__name__ == "Fixed"


def _is_unused(trial: Any, name: str) -> bool:
    """Whether a hyperparameter meant nothing in a trial: Keras Tuner keeps active values alone."""
    return name not in trial.hyperparameters.values


def _choose_names(given: Any, searched: Sequence[str], owner: str) -> list[str]:
    """Return the names of the hyperparameters to draw."""
    if not searched:
        raise ValueError(f"`tuner` of {owner} must search a hyperparameter. Received: none.")
    if given is None:
        return list(searched)
    names = to_list(given)
    if names is None or not all(isinstance(name, str) for name in names):
        expected = "a list of names, or None"
        raise TypeError(error_message("hyperparameters", owner, expected, given))
    expected = f"different names of what was searched ({', '.join(searched)})"
    for name in names:
        if name not in searched:
            hint = suggest_nearest(name, searched)
            raise ValueError(error_message("hyperparameters", owner, expected, given, hint))
    if not names or len(set(names)) < len(names):
        raise ValueError(error_message("hyperparameters", owner, expected, given))
    return names


def _make_score_scale(trials: Sequence[Any]) -> Numbers:
    """Return the axis of the scores, from the worst one to the best one."""
    finite = [trial.score for trial in trials if math.isfinite(trial.score)]
    worst, best = float(finite[-1]), float(finite[0])
    if worst == best:  # A single score stands in the middle.
        room = abs(best) / 10 or 1.0
        return Numbers(best - room, best + room)
    return Numbers(worst, best)


def _find_layout(scales: Mapping[str, Scale]) -> tuple[float, float, float]:
    """Return the left margin and the distance of the axes in inches, and the angle of their names.

    The labels of the first axis are in the margin, those of any other left of it.
    """
    lengths = [max(len(label) for _, label in scale.list_ticks()) for scale in scales.values()]
    margin, *widths = (INCHES_PER_CHARACTER * length + 0.35 for length in lengths)
    distance = max(1.0, 4.0 / len(scales), *widths)
    longest_name = INCHES_PER_CHARACTER * (max(map(len, scales)) + 1)
    return margin, distance, 0.0 if longest_name <= distance else 30.0


def _make_colours() -> "Colormap":
    """Return the colours from the worst score to the best: the darkest is seen best on white."""
    from matplotlib import colormaps, colors

    cividis = colormaps["cividis"]
    shades = [cividis(0.92 * (1.0 - level / 255)) for level in range(256)]
    return colors.ListedColormap(shades, "cividis_on_white")


def _draw_scale(axes: "Axes", place: int, scale: Scale) -> None:
    axes.vlines(place, 0.0, 1.0, color=BLACK, linewidth=0.8)
    for height, label in scale.list_ticks():
        axes.hlines(height, place - 0.03, place, color=BLACK, linewidth=0.8)
        axes.annotate(
            label,
            (place, height),
            xytext=(-6, 0),
            textcoords="offset points",
            horizontalalignment="right",
            verticalalignment="center",
            fontsize=FONT_SIZE,
            parse_math=False,
            zorder=10,  # over the lines that pass there
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
        )
    if isinstance(scale, Categories):
        for value in scale.values:
            _draw_band(axes, place, scale.place(value), scale.band)


def _draw_below(axes: "Axes", place: int, text: str) -> None:
    """Draw the place of missing values on an axis."""
    axes.vlines(place, BELOW, 0.0, color=GREY, linewidth=0.8, linestyle=":", clip_on=False)
    _draw_band(axes, place, BELOW, BELOW_BAND)
    axes.annotate(
        text,
        (place, BELOW - BELOW_BAND / 2),
        xytext=(0, -4),
        textcoords="offset points",
        horizontalalignment="center",
        verticalalignment="top",
        fontsize=FONT_SIZE,
        fontstyle="italic",
        color=DARK_GREY,
        annotation_clip=False,
    )


def _draw_band(axes: "Axes", place: int, middle: float, height: float) -> None:
    ends = middle - height / 2, middle + height / 2
    axes.vlines(place, *ends, color=LIGHT_GREY, linewidth=7.0, zorder=1.5, clip_on=False)


def _draw_names(axes: "Axes", names: Iterable[str], rotation: float) -> None:
    for place, name in enumerate(names):
        axes.annotate(
            name,
            (place, 1.0),
            xytext=(0, 8),
            textcoords="offset points",
            horizontalalignment="left" if rotation else "center",
            verticalalignment="bottom",
            rotation=rotation,
            rotation_mode="anchor",
            parse_math=False,
        )


def _draw_scores(
    axes: "Axes",
    place: int,
    scores: Numbers,
    objective: Any,
    trials: Sequence[Any],
    colours: "Colormap",
) -> None:
    """Draw the axis of the objective, which is also the scale of the colours."""
    strip = axes.inset_axes((place, 0.0, STRIP_WIDTH, 1.0), transform=axes.transData)
    strip.imshow(
        [[level] for level in range(256)],
        cmap=colours,
        aspect="auto",
        origin="lower",
        extent=(0, 1, 0, 1),
    )
    strip.set_xticks([])
    strip.yaxis.tick_right()
    strip.yaxis.set_label_position("right")
    ticks = _list_score_ticks(scores, trials)
    strip.set_yticks([height for height, _ in ticks], [label for _, label in ticks])
    best = strip.get_yticklabels()[-1]
    best.set(color=VERMILION, fontweight="bold")
    better = "higher" if objective.direction == "max" else "lower"
    strip.set_ylabel(f"{objective.name} ({better} is better)", labelpad=10.0, parse_math=False)
    if not math.isfinite(trials[-1].score):
        _draw_below(axes, place, "not finite")


def _list_score_ticks(scores: Numbers, trials: Sequence[Any]) -> list[tuple[float, str]]:
    """Return the places and labels of the worst and the best score, and of numbers between."""
    from matplotlib.ticker import MaxNLocator

    best = float(trials[0].score)
    if scores.place(best) < 1.0:
        return [(scores.place(best), write_number(best, _count_digits(scores)))]
    numbers = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(
        *sorted((scores.low, scores.high))
    )
    places = sorted((scores.place(number), number) for number in numbers)
    inner = [(place, n) for place, n in places if CLOSEST <= place <= 1.0 - CLOSEST]
    digits = _count_digits(scores)
    ticks = [(0.0, scores.low), *inner, (1.0, scores.high)]
    return [(place, write_number(number, digits)) for place, number in ticks]


def _count_digits(scores: Numbers) -> int:
    """Return how many digits tell scores apart."""
    largest = max(abs(scores.low), abs(scores.high))
    return min(15, 3 + max(0, math.ceil(math.log10(largest / abs(scores.high - scores.low)))))


def _draw_trials(
    axes: "Axes",
    trials: Sequence[Any],
    scales: Mapping[str, Scale],
    scores: Numbers,
    colours: "Colormap",
) -> None:
    thin = 1.2 if len(trials) <= FEW_TRIALS else 0.7
    for rank in reversed(range(len(trials))):
        trial = trials[rank]
        shift = 0.5 - rank / (len(trials) - 1) if len(trials) > 1 else 0.0
        heights = [_place(trial, name, scale, shift) for name, scale in scales.items()]
        is_finite = math.isfinite(trial.score)
        level = scores.place(trial.score) if is_finite else BELOW + shift * BELOW_BAND
        colour = colours(level) if is_finite else GREY
        axes.plot(
            range(len(heights) + 1),
            [*heights, level],
            label=f"trial {trial.trial_id}",
            color=colour if rank else VERMILION,
            linewidth=thin if rank else 3.0,
            linestyle="-" if is_finite else "--",
            alpha=0.85 if rank else 1.0,
            zorder=3 if rank else 4,
            clip_on=False,
        )


def _place(trial: Any, name: str, scale: Scale, shift: float) -> float:
    """Return the height at which a trial crosses the axis of a hyperparameter."""
    if _is_unused(trial, name):
        return BELOW + shift * BELOW_BAND
    return scale.place(trial.hyperparameters.values[name]) + shift * scale.band


def _describe(trials: Sequence[Any], total: int, scores: Numbers, name: str) -> str:
    number = f"{total}" if len(trials) == total else f"{len(trials)} of {total}"
    best = trials[0]
    score = write_number(best.score, _count_digits(scores))
    noun = "trial" if total == 1 else "trials"
    return f"{number} {noun}; the best (thick): trial {best.trial_id}, {name} {score}"
