"""Dtype policies as users give them, and the float policies behind quantized ones."""

from typing import Any

import keras

from keras_binclf._validation import error_message

EXPECTED = (
    "the name of a dtype policy such as 'mixed_bfloat16', a keras.DTypePolicy, or the dict that "
    "keras.saving.serialize_keras_object returns for one"
)


def get_policy(value: Any, owner: str) -> Any:
    """Return the policy that a name, a config, a policy or None (the global one) stands for.

    Args:
        value: the `dtype` that was given.
        owner: name of the class, for messages.

    Raises:
        TypeError: for a value that cannot be a policy.
        ValueError: for a dict that is not the config of a policy, and, with Keras's message, for
            an unknown name.
    """
    try:
        return keras.dtype_policies.get(value)
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(value, str):
            raise
        kind = ValueError if isinstance(value, dict) else TypeError
        raise kind(error_message("dtype", owner, EXPECTED, value)) from error


def get_own_policy(layer: keras.layers.Layer) -> Any:
    """Return the policy of a built layer, also where a map gives it one by its path."""
    policy = layer.dtype_policy
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    return policy[layer.path] if is_map else policy


def get_float_policy(policy: Any) -> Any:
    """Return the policy without quantization, for layers that cannot be quantized."""
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        default = get_float_policy(policy.default_policy)
        by_path = {path: get_float_policy(policy[path]) for path in policy}
        return keras.dtype_policies.DTypePolicyMap(default, by_path)
    if policy.quantization_mode is None:
        return policy
    dtype = policy.compute_dtype
    mixed = dtype != policy.variable_dtype
    return keras.dtype_policies.DTypePolicy(f"mixed_{dtype}" if mixed else dtype)


def get_full_precision(policy: Any) -> Any:
    """Return float64 for a policy that computes in it, and float32 for every other one."""
    is_double = policy.compute_dtype == "float64"
    return keras.dtype_policies.DTypePolicy("float64" if is_double else "float32")
