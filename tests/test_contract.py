"""Every registered class passes every check of its kind, in every case."""

import keras
import pytest
from contract import CASES
from contract_layers import LAYER_CHECKS
from contract_metrics import METRIC_CHECKS

import keras_binclf
from keras_binclf._registry import REGISTERED

CHECKS = {keras.layers.Layer: LAYER_CHECKS, keras.metrics.Metric: METRIC_CHECKS}


def checks_of(cls):
    """Return the checks of the kind of class that `cls` is."""
    return [check for kind, checks in CHECKS.items() if issubclass(cls, kind) for check in checks]


CELLS = [
    pytest.param(cls, case, check, id=f"{cls.__name__}-{check.__name__}-{case.name}")
    for cls in REGISTERED.values()
    for case in CASES.get(cls, [])
    for check in checks_of(cls)
]


@pytest.mark.parametrize(("cls", "case", "check"), CELLS)
def test_contract(cls, case, check, tmp_path, record_property):
    record_property("contract_cell", (cls.__name__, check.__name__))
    check(cls, case, tmp_path)


@pytest.mark.parametrize("cls", list(REGISTERED.values()))
def test_every_registered_class_has_cases_and_checks(cls):
    assert CASES.get(cls), f"add cases of {cls.__name__} to CASES"
    assert checks_of(cls), f"add checks for what {cls.__name__} is to CHECKS"


def test_every_public_class_that_goes_into_files_is_registered():
    public = [getattr(keras_binclf, name) for name in keras_binclf.__all__]
    kinds = tuple(CHECKS)
    assert {c for c in public if isinstance(c, type) and issubclass(c, kinds)} == set(
        REGISTERED.values()
    )
