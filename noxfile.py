"""Sessions that must pass before a change lands; docs/development.md says what each checks.

`.ci/run` installs nox and runs all of them; `.ci/run NAME ...`, or `nox -s NAME ...`, runs some.

TensorFlow takes 2 GB in each environment. When `.ci/run` runs all sessions, it sets
KERAS_BINCLF_DROP_ENVIRONMENTS: an environment is removed after the last session that uses it, so
that only one exists at a time.
"""

import contextlib
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nox

ROOT = Path(__file__).parent
WORK = ROOT / ".nox" / "work"
"""Files that one session leaves for another."""

TORCH = "torch==2.13.0"  # its CPU build; a plain `torch` takes gigabytes of CUDA
RTDL = "rtdl_num_embeddings==0.0.12"  # the oracle of `NumericalEmbedding`; needs torch
DROP = bool(os.environ.get("KERAS_BINCLF_DROP_ENVIRONMENTS"))

# On JAX most of the time goes into compiling: the compiler is told not to optimize, and to share
# compiled functions among tests. The other backends run the examples, the
# tutorials and the descriptions of files.
JAX = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_COMPILATION_CACHE_DIR": str(WORK / "jax_cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
NOT_ON_JAX = ["tests/test_describe.py", "tests/test_documentation.py", "tests/test_tutorials.py"]

# `pyproject.toml` deselects tests marked `slow`; only the README's command needs that.
WITH_SLOW = ["-m", ""]

# Examples, random files and values of single metrics are for the newest versions.
NOT_ON_LOWEST = [
    "tests/test_fuzz.py",
    "tests/test_tutorials.py",
    "tests/test_metric_values.py",
    "tests/test_metric_properties.py",
    "tests/test_documentation.py",
]

nox.needs_version = ">=2025.10.14"  # `requires`
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.stop_on_first_error = True
nox.options.sessions = [
    "lint",
    "docs",
    "cross",
    "jax",
    "torch",
    "slow",
    "browser",
    "readme",
    "lowest",
    "wheel",
    "serve",
]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def drop(name: str) -> None:
    """Remove an environment after its last session, when all sessions run."""
    if DROP:
        shutil.rmtree(ROOT / ".nox" / name, ignore_errors=True)


def ignore(files: list[str]) -> list[str]:
    """Return the options with which pytest leaves out test files."""
    return [f"--ignore={file}" for file in files]


# uv does not know the local CPU build of PyTorch that pip takes on some machines.
@nox.session(venv_backend="virtualenv", default=False)
def backends(session: nox.Session) -> None:
    """Install the package with all backends: the environment of several sessions."""
    done = Path(session.virtualenv.location) / "installed.toml"
    project = (ROOT / "pyproject.toml").read_text() + f"# {TORCH} {RTDL}\n"
    if not done.exists() or done.read_text() != project:
        session.install("-q", "-e", ".[dev,docs,jax]", TORCH, RTDL)
        done.write_text(project)


def run_with_backends(session: nox.Session, *arguments: str, **env: str) -> None:
    """Run a program of the environment `backends`."""
    program = ROOT / ".nox" / "backends" / "bin" / arguments[0]
    session.run(str(program), *arguments[1:], env=env, external=True)


def test_backend(session: nox.Session, backend: str, *arguments: str, **env: str) -> None:
    """Run tests on a backend, and fail where a backend that tests ask for is missing.

    `tests/conftest.py` leaves those that are marked `once` to TensorFlow.
    """
    env |= {"KERAS_BACKEND": backend, "KERAS_BINCLF_REQUIRE_BACKENDS": "tensorflow,jax,torch"}
    run_with_backends(session, "python", "-m", "pytest", *arguments, *session.posargs, **env)


@contextlib.contextmanager
def jax_cache() -> Iterator[dict[str, str]]:
    """Give the variables of `JAX`, with an empty cache that is removed in the end."""
    cache = JAX["JAX_COMPILATION_CACHE_DIR"]
    shutil.rmtree(cache, ignore_errors=True)
    yield JAX
    shutil.rmtree(cache, ignore_errors=True)


@nox.session(venv_backend="none", requires=["backends"])
def lint(session: nox.Session) -> None:
    """Check format, lint and types."""
    run_with_backends(session, "ruff", "format", "--check", ".")
    run_with_backends(session, "ruff", "check", ".")
    run_with_backends(session, "mypy")


@nox.session(venv_backend="none", requires=["backends"])
def docs(session: nox.Session) -> None:
    """Build the site without a warning."""
    site = str(WORK / "site")
    run_with_backends(
        session, "python", "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", site
    )


@nox.session(venv_backend="none", requires=["backends"])
def cross(session: nox.Session) -> None:
    """Load on JAX and PyTorch what was saved on TensorFlow."""
    with jax_cache() as env:
        test_backend(session, "tensorflow", *WITH_SLOW, "tests/test_cross_backend.py", **env)


@nox.session(venv_backend="none", requires=["backends"])
def jax(session: nox.Session) -> None:
    """Run the tests on JAX."""
    with jax_cache() as env:
        test_backend(session, "jax", *WITH_SLOW, *ignore(NOT_ON_JAX), **env)


@nox.session(venv_backend="none", requires=["backends"])
def torch(session: nox.Session) -> None:
    """Run the tests on PyTorch."""
    test_backend(session, "torch", *WITH_SLOW)


@nox.session(venv_backend="none", requires=["backends"])
def slow(session: nox.Session) -> None:
    """Run the tests marked `slow`, which the README's command leaves out, on TensorFlow."""
    test_backend(session, "tensorflow", "-m", "slow")


@nox.session(venv_backend="none", requires=["backends"])
def browser(session: nox.Session) -> None:
    """Run the example page in Chromium, where it and Node are installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not (chromium and shutil.which("node") and shutil.which("npm")):
        session.log("browser: not run: node or chromium is missing")
    else:
        folder = WORK / "browser"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("index.html", "app.js", "package.json", "make_model.py", "test_page.mjs"):
            shutil.copy(ROOT / "examples" / "browser" / name, folder)
        with session.chdir(folder):
            quiet = ("--no-package-lock", "--no-audit", "--no-fund")
            session.run("npm", "install", *quiet, external=True)
            run_with_backends(session, "python", "make_model.py")
            session.run("node", "test_page.mjs", env={"CHROMIUM": chromium}, external=True)
    drop("backends")


@nox.session(venv_backend="none")
def readme(session: nox.Session) -> None:
    """Run the two commands of the README, as a reader copies them."""
    blocks = "".join(
        re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    )
    (quickstart,) = re.findall(r"^.*quickstart\.py.*$", blocks, re.M)
    (tests,) = re.findall(r"^.*pytest.*$", blocks, re.M)
    had_environment = (ROOT / ".venv").exists()
    check_quickstart(session, ["bash", "-euc", quickstart])
    session.run("bash", "-euc", tests, external=True)
    if DROP and not had_environment:
        shutil.rmtree(ROOT / ".venv")


def check_quickstart(session: nox.Session, command: list[str]) -> None:
    """Run the quickstart, and check what it says."""
    output = session.run(*command, silent=True, external=True)
    print(output)
    assert "labelled in a fresh process: identical" in output
    found, best = re.search(r"test ROC AUC: ([\d.]+); of the law itself: ([\d.]+)", output).groups()
    assert float(found) >= float(best) - 0.02


@nox.session(venv_backend="virtualenv")
def lowest(session: nox.Session) -> None:
    """Run the tests with exactly the lower bounds of `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"]]
    for name in ("sklearn", "plots", "pandas", "optuna"):
        bounds += extras[name]
    pins = [bound.replace(">=", "==") for bound in bounds]
    session.log(" ".join(pins))
    session.install("-q", *pins, "hypothesis", "pytest", "pytest-xdist")
    session.install("-q", "--no-deps", "-e", ".")
    session.run("python", "-m", "pytest", *WITH_SLOW, *ignore(NOT_ON_LOWEST), *session.posargs)
    drop("lowest")


@nox.session
def wheel(session: nox.Session) -> None:
    """Install the built wheel alone, and run the examples outside the tree."""
    dist, served = WORK / "dist", WORK / "served"
    for folder in (dist, served):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    session.install("-q", "build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT), silent=True)
    (built,) = dist.glob("*.whl")
    session.install("-q", f"{built}[sklearn,pandas,export]")
    for example in (ROOT / "examples").glob("*.py"):
        shutil.copy(example, dist)
    with session.chdir(dist):
        check_quickstart(session, ["python", "quickstart.py"])
        output = session.run("python", "tune.py", "--trials", "2", silent=True)
        print(output)
        assert "same labels" in output
        session.run("python", "deploy.py", str(served))
        session.run("python", "-c", CHECK_WHEEL)
    drop("wheel")


CHECK_WHEEL = """
import pathlib, sys
import keras_binclf
folder = pathlib.Path(keras_binclf.__file__).parent
assert folder.is_relative_to(sys.prefix), folder
assert (folder / "py.typed").exists()
"""


@nox.session
def serve(session: nox.Session) -> None:
    """Serve what `wheel` exported, where this package is not installed."""
    served = WORK / "served"
    session.install("-q", "tensorflow", "onnxruntime", "ai-edge-litert", "openvino")
    session.run("python", "tests/serve_elsewhere.py", str(served))
    with session.chdir(served):
        session.run("python", "-c", CHECK_SERVED)
    drop("serve")


CHECK_SERVED = """
import importlib.util, pathlib
import numpy as np
assert importlib.util.find_spec("keras_binclf") is None
folder = pathlib.Path()
labels = np.load(folder / "tumours.labels.npy")
served = sorted(folder.glob("*.served.npz"))
assert len(served) == 5, served
for path in served:
    other = int((np.load(path)["label"] != labels).sum())
    print(f"{path.name}: {other} other labels in {len(labels):,} rows")
    assert other == 0
"""
