"""Models that need a class of their own, which whoever loads them has to import too."""

import keras

from keras_binclf import BinaryHead, MLPBlock


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Two layers of ours, called by hand."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.block = MLPBlock(units, dropout_rate=0.1)
        self.head = BinaryHead(prior=0.3)

    def build(self, input_shape):
        self.block.build(input_shape)
        self.head.build(self.block.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        return self.head(self.block(inputs, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class OwnTrainStep(keras.Model):
    """A functional model with the training loop that Keras's guides write for each backend."""

    def train_step(self, *args):
        return STEPS[keras.backend.backend()](self, *args)


def tensorflow_step(model, data):
    import tensorflow as tf

    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    weights = model.trainable_weights
    model.optimizer.apply(tape.gradient(loss, weights), weights)
    return track(model, loss)


def torch_step(model, data):
    import torch

    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    model.zero_grad()
    loss = model.compute_loss(x, y, model(x, training=True))
    loss.backward()
    weights = model.trainable_weights
    with torch.no_grad():
        model.optimizer.apply([weight.value.grad for weight in weights], weights)
    return track(model, loss)


def jax_step(model, state, data):
    import jax

    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    trainable, non_trainable, optimizer_variables, metric_variables = state

    def forward(trainable, non_trainable):
        outputs, updated = model.stateless_call(trainable, non_trainable, x, training=True)
        return model.compute_loss(x, y, outputs), updated

    step = jax.value_and_grad(forward, has_aux=True)
    (loss, non_trainable), gradients = step(trainable, non_trainable)
    trainable, optimizer_variables = model.optimizer.stateless_apply(
        optimizer_variables, gradients, trainable
    )
    (tracker,) = model.metrics
    metric_variables = tracker.stateless_update_state(metric_variables, loss)
    logs = {"loss": tracker.stateless_result(metric_variables)}
    return logs, (trainable, non_trainable, optimizer_variables, metric_variables)


def track(model, loss):
    (tracker,) = model.metrics
    tracker.update_state(loss)
    return {"loss": tracker.result()}


STEPS = {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}
