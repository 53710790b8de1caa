"""What all figures share: their colours, and how they are made without pyplot."""

import functools
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/, without the
# yellow, which is hard to see on white.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILION, BLACK)
GREY = "#999999"


def make_figure(width: float, height: float) -> "Figure":
    """Return a figure that pyplot knows nothing of, but that notebooks show."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            '`keras_binclf.plots` needs matplotlib: `pip install "keras-binclf[plots]"`.'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    # IPython asks for it where no backend of pyplot has said how to show a figure.
    figure._repr_png_ = functools.partial(_to_png, figure)  # type: ignore[attr-defined]
    return figure


def _to_png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
