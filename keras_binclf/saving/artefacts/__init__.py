"""Export: a model as an artefact for other runtimes, one module a format."""

from keras_binclf.saving.artefacts.artefact import Exported, export

__all__ = ["Exported", "export"]
