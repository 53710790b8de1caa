"""Errors for packages that are not installed: they name the command that installs them."""

BACKENDS = ("tensorflow", "jax", "torch")


def explain_missing(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error of a failed `import keras`, with the command that installs what it needs."""
    name = (error.name or "keras").split(".")[0]
    text = f"keras_binclf needs {name}, which is not installed: `pip install {name}`."
    if name in BACKENDS:
        others = ", ".join(repr(backend) for backend in BACKENDS if backend != name)
        text += (
            f" Keras computes with it. To compute with another backend ({others}), set the "
            "environment variable KERAS_BACKEND before Keras is imported."
        )
    return ModuleNotFoundError(text, name=error.name)


def explain_missing_tuner(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error of a failed `import keras_tuner`, with the command that installs it."""
    text = (
        "keras_binclf.tuner needs Keras Tuner with the packages that it depends on. Not installed: "
        f"{error.name}. `pip install keras-tuner`."
    )
    return ModuleNotFoundError(text, name=error.name)
