"""Settings that must be made before Keras is imported, and what several test files share."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ["KERAS_BACKEND"] == "torch":
    # PyTorch with several OpenMP threads is orders of magnitude slower on small machines.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import pytest

SLOW_FIRST = (
    "test_adam_moment_logger.py",
    "test_search_projects.py",
    "test_contract.py",
    "test_search.py",
    "test_cross_backend.py",
    "test_documentation.py",
    "test_export.py",
    "test_composition.py",
    "test_hyper_model.py",
    "test_adam_oracle.py",
    "test_threshold_tuner.py",
    "test_plots.py",
)
"""Files that take half a minute and more: at the end, they would leave one of two workers idle."""

CELLS: dict[tuple[str, str], bool] = {}
DIFFERENCES: dict[tuple[str, str], float] = {}
ADAM_ERRORS: dict[str, float] = {}


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Give each test the same random numbers, names and policies."""
    keras.utils.set_random_seed(0)
    keras.utils.clear_session(free_memory=False)
    yield
    keras.config.set_dtype_policy("float32")


def is_once(item):
    return item.get_closest_marker("once") is not None


def pytest_collection_modifyitems(config, items):
    """Run the slow files first, and tests marked `once` on TensorFlow only.

    Each worker takes a whole file at a time, so that module fixtures are made once.
    """
    if keras.backend.backend() != "tensorflow":
        config.hook.pytest_deselected(items=[item for item in items if is_once(item)])
        items[:] = [item for item in items if not is_once(item)]
    places = {name: place for place, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_runtest_logreport(report):
    """Collect the cells of the contract: a cell passes if all of its cases do.

    And the differences between backends: of each pair, the largest. And how far the logged moments
    are from the oracle's: of each optimizer, the farthest.
    """
    properties = dict(report.user_properties)
    cell = properties.get("contract_cell")
    if cell and (report.when == "call" or report.failed):
        CELLS[tuple(cell)] = CELLS.get(tuple(cell), True) and report.passed
    if report.when == "call" and "cross_backend" in properties:
        *pair, difference = properties["cross_backend"]
        DIFFERENCES[tuple(pair)] = max(DIFFERENCES.get(tuple(pair), 0.0), difference)
    if report.when == "call" and "adam_oracle" in properties:
        optimizer, error = properties["adam_oracle"]
        ADAM_ERRORS[optimizer] = error


def pytest_terminal_summary(terminalreporter):
    if CELLS:
        backend = os.environ["KERAS_BACKEND"]
        classes = {name for name, _ in CELLS}
        checks = {check for _, check in CELLS}
        terminalreporter.write_line(
            f"contract on {backend}: {sum(CELLS.values())} of {len(CELLS)} cells passed "
            f"({len(classes)} classes, {len(checks)} checks of their kinds)"
        )
    if DIFFERENCES:
        pairs = [f"{a} -> {b} {value:.1e}" for (a, b), value in DIFFERENCES.items()]
        largest = max(DIFFERENCES.values())
        terminalreporter.write_line(
            f"cross-backend: largest difference {largest:.1e} ({', '.join(pairs)})"
        )
    if ADAM_ERRORS:
        errors = "; ".join(f"{name} {error:.1e}" for name, error in ADAM_ERRORS.items())
        terminalreporter.write_line(f"Adam's moments, largest relative error: {errors}")
