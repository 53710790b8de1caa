"""The sublayers of a composite layer: how they are made, and which were changed since."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_binclf._registry import drop_sharing
from keras_binclf._validation import error_message, suggest_nearest


class Sublayers:
    """Makes the sublayers of one layer, from their saved configs where these are given.

    A composite layer is rebuilt from its own arguments. A sublayer that was quantized, frozen or
    given LoRA weights would be lost, so the configs of changed sublayers are saved beside them.

    Args:
        saved: dict of configs by name of the sublayer, as `get_changed` returns it, or None.
        owner: name of the composite layer's class, for messages.
    """

    def __init__(self, saved: Any, owner: str) -> None:
        valid = isinstance(saved, Mapping) and all(isinstance(v, dict) for v in saved.values())
        if not (saved is None or valid):
            expected = "None or a dict of configs by name, as `get_config` returns it"
            raise TypeError(error_message("sublayers", owner, expected, saved))
        self._saved: dict[str, Any] = dict(saved or {})
        self._owner = owner
        self._first_configs: dict[str, Any] = {}

    def make(self, cls: Any, config: Mapping[str, Any]) -> Any:
        """Return a sublayer, with its saved config where there is one.

        Args:
            cls: class of the sublayer.
            config: its config as the arguments of the composite layer give it, with a name.
        """
        layer = cls.from_config(dict(config))
        self._first_configs[layer.name] = drop_sharing(layer.get_config())
        saved = self._saved.get(layer.name)
        return layer if saved is None else cls.from_config(saved)

    def check_saved_names(self, known: Iterable[str]) -> None:
        """Raise `ValueError` if a config was given for a sublayer that does not exist."""
        known = list(known)
        unknown = [name for name in self._saved if name not in known]
        if unknown:
            expected = f"a dict with keys among {', '.join(map(repr, known))}"
            hint = suggest_nearest(unknown[0], known)
            raise ValueError(
                f"`sublayers` of {self._owner} must be {expected}. Received the unknown "
                f"{', '.join(map(repr, unknown))}." + (f" {hint}" if hint else "")
            )

    def get_changed(self, layers: Iterable[keras.Layer], trainable: bool) -> dict[str, Any] | None:
        """Return the configs that differ from those at the start, or None if there are none.

        Args:
            layers: the sublayers.
            trainable: `trainable` of the composite layer, which it hands on to its sublayers.
        """
        configs = {layer.name: drop_sharing(layer.get_config()) for layer in layers}
        changed = {
            name: config
            for name, config in configs.items()
            if config != {**self._first_configs[name], "trainable": trainable}
        }
        return changed or None
