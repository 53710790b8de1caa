"""All formats: a new one is a module beside this one, and a line here."""

from keras_binclf.saving.artefacts._format import Format
from keras_binclf.saving.artefacts._litert import LiteRT
from keras_binclf.saving.artefacts._onnx import ONNX
from keras_binclf.saving.artefacts._openvino import OpenVINO
from keras_binclf.saving.artefacts._saved_model import SavedModel

FORMATS: dict[str, Format] = {
    spec.name: spec for spec in (SavedModel(), ONNX(), LiteRT(), OpenVINO())
}
