"""Every registered class passes every check of its kind, in every case."""

import contract
import pytest

import keras_binclf
from keras_binclf._registry import REGISTERED

CELLS = [
    pytest.param(cls, case, check, id=f"{cls.__name__}-{check.__name__}-{case.name}")
    for cls in REGISTERED.values()
    for case in contract.CASES.get(cls, [])
    for check in contract.checks_of(cls)
]


@pytest.mark.parametrize(("cls", "case", "check"), CELLS)
def test_contract(cls, case, check, tmp_path, record_property):
    record_property("contract_cell", (cls.__name__, check.__name__))
    check(cls, case, tmp_path)


@pytest.mark.parametrize("cls", list(REGISTERED.values()))
def test_every_registered_class_has_cases_and_checks(cls):
    assert contract.CASES.get(cls), f"add cases of {cls.__name__} to contract.CASES"
    assert contract.checks_of(cls), f"add checks for what {cls.__name__} is to contract.CHECKS"


def test_every_public_class_that_goes_into_files_is_registered():
    public = [getattr(keras_binclf, name) for name in keras_binclf.__all__]
    kinds = tuple(contract.CHECKS)
    assert {c for c in public if isinstance(c, type) and issubclass(c, kinds)} == set(
        REGISTERED.values()
    )
