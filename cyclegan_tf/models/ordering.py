"""The order in which TensorFlow runs what does not depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def after(done: Sequence[tf.Tensor], *tensors: tf.Tensor) -> list[tf.Tensor]:
    """The tensors, for what must not start before all of ``done`` is there.

    What starts early is kept until it is needed, so order is memory.
    """
    with tf.control_dependencies(done):
        return [tf.identity(tensor) for tensor in tensors]
