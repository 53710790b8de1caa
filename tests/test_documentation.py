"""The documentation is true: examples run, stated defaults are real, links lead somewhere."""

import dataclasses
import inspect
import re
import runpy
import shutil
from pathlib import Path

import keras
import pandas as pd
import pytest

import keras_binclf
from keras_binclf import plots, saving

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md")])
PUBLIC = [
    *(getattr(keras_binclf, name) for name in keras_binclf.__all__ if name[0] != "_"),
    *(getattr(plots, name) for name in plots.__all__),
    saving.Exported,
    saving.FileDescription,
    saving.describe,
]
LONG_PAGES = ("docs/tuning.md", "docs/thresholds.md", "docs/adam.md")
"""Pages whose examples train or search for more than ten seconds."""
METHODS = [getattr(keras_binclf.BinaryClassifierHyperModel, name) for name in ("fit", "preflight")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def examples():
    for item in PUBLIC:
        blocks = BLOCK.findall(inspect.getdoc(item))
        assert blocks, f"{item.__name__} has no example"
        yield from (pytest.param([block], id=item.__name__) for block in blocks)
    suggest = keras_binclf.BinaryClassifierHyperModel.suggest
    yield pytest.param(BLOCK.findall(inspect.getdoc(suggest)), id="suggest")
    for page in PAGES:
        blocks = BLOCK.findall(page.read_text())
        name = str(page.relative_to(ROOT))
        if blocks:
            yield pytest.param(blocks, id=name, marks=[pytest.mark.slow] * (name in LONG_PAGES))


@pytest.fixture(scope="module")
def customers(tmp_path_factory):
    """The table that pages read, as `examples/customers.py` writes it."""
    path = tmp_path_factory.mktemp("table") / "customers.csv"
    runpy.run_path(str(ROOT / "examples" / "customers.py"))["write_customers"](path)
    return path


def test_printed_encoder_is_that_of_the_page(customers):
    page = (ROOT / "docs" / "tables.md").read_text()
    encoder = keras_binclf.TabularEncoder()
    encoder.adapt(pd.read_csv(customers).drop(columns="left")[:2400])
    assert re.search(r"^```text\n(.*?)\n```", page, re.M | re.S)[1] == str(encoder)


@pytest.mark.parametrize("blocks", list(examples()))
def test_example_runs(blocks, customers, tmp_path, monkeypatch):
    """The blocks of a page run one after the other in one namespace, as typed."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(customers, tmp_path)
    namespace = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "<example>", "exec"), namespace)


@pytest.mark.parametrize("item", [*PUBLIC, *METHODS], ids=lambda item: item.__name__)
def test_stated_arguments_and_defaults_are_those_of_the_signature(item):
    function = item.__init__ if isinstance(item, type) else item
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    text = inspect.getdoc(item).split("Args:\n")[1].split("\n\n")[0]
    entries = dict(re.findall(r"^    (\*{0,2}\w+): (.*?)(?=^    \S|\Z)", text + "\n", re.M | re.S))
    stars = {inspect.Parameter.VAR_KEYWORD: "**"}
    assert list(entries) == [stars.get(p.kind, "") + p.name for p in parameters]
    for parameter in parameters:
        stated = re.search(r"Defaults\s+to\s+`([^`]*)`", entries.get(parameter.name, ""))
        if parameter.default is inspect.Parameter.empty:
            assert not stated
        else:
            assert stated, parameter.name
            assert eval(stated[1]) == parameter.default, parameter.name


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.__name__)
def test_public_docstrings_have_their_parts(item):
    text = inspect.getdoc(item)
    parts = ["Args:", "Example:"]
    if not dataclasses.is_dataclass(item):
        parts.append("Raises:")
    if isinstance(item, type) and issubclass(item, keras.Layer):
        parts += ["Input shape:", "Output shape:"]
    for part in parts:
        assert f"\n{part}\n" in text, part


def anchors(page):
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def figures(page):
    """What the code of a page draws, and `docs/_hooks.py` puts beside it."""
    return re.findall(r'savefig\("([^"/]+\.png)"', "".join(BLOCK.findall(page.read_text())))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    drawn = figures(page)
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link) or link in drawn:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_figure_is_shown_and_described(page):
    for name in figures(page):
        assert re.search(rf"!\[[^\]]{{40,}}\]\({name}\)", page.read_text()), name
