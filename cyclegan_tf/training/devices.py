"""Which devices a run trains on, and in which precision."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from cyclegan_tf.cluster import VARIABLE, Cluster
from cyclegan_tf.config import RunConfig
from cyclegan_tf.errors import UserError

_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_GPU_CAPABILITY = (8, 0)  # Ampere


def make_strategy(config: RunConfig) -> tf.distribute.Strategy:
    """A MirroredStrategy over every GPU, over the CPU, or over ``replicas`` devices.

    More replicas than GPUs become virtual CPU devices, for trying out what many devices do. Where
    TF_CONFIG names several workers, it is a MultiWorkerMirroredStrategy over all their devices,
    which waits until all of them have started. Before that, TensorFlow is made ``deterministic``.

    Raises:
        UserError: if virtual devices are asked for after TensorFlow has started, or the batch
            cannot be shared out evenly.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if Cluster.from_environment().workers > 1:
        return _multi_worker_strategy(config)
    gpus = gpus_of(config)
    # TensorFlow's default, made explicit: float32 convolutions on GPUs from Ampere on.
    tf.config.experimental.enable_tensor_float_32_execution(True)
    count = len(gpus) or max(1, config.replicas)
    _check_batch(config, count, "--replicas 1 for one of them")
    if gpus:
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(count)])
    split_cpu(config)
    # The default, collectives, breaks when a process makes a second such strategy.
    return tf.distribute.MirroredStrategy(
        [f"/cpu:{i}" for i in range(count)], tf.distribute.ReductionToOneDevice()
    )


def gpus_of(config: RunConfig) -> list[tf.config.PhysicalDevice]:
    """The GPUs that a run trains on; none where it has more replicas than there are GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    if Cluster.from_environment().workers > 1:
        return gpus
    return gpus[: config.replicas or None] if config.replicas <= len(gpus) else []


def _multi_worker_strategy(config: RunConfig) -> tf.distribute.Strategy:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    count = strategy.num_replicas_in_sync
    if config.replicas not in (0, count):
        raise UserError(
            f"--replicas {config.replicas}: the workers of {VARIABLE} have {count} devices; leave "
            "it out"
        )
    _check_batch(config, count, "fewer workers")
    return strategy


def _check_batch(config: RunConfig, count: int, otherwise: str) -> None:
    if config.batch_size % count:
        raise UserError(
            f"--batch-size {config.batch_size}: must be divisible by the {count} replicas; take "
            f"{count}, or {otherwise}"
        )


def split_cpu(config: RunConfig) -> None:
    """Makes the virtual CPU devices of ``replicas`` beyond the GPUs, unless they are there already.

    Raises:
        UserError: if TensorFlow has started without them.
    """
    count = config.replicas
    cpu = tf.config.list_physical_devices("CPU")[0]
    present = tf.config.get_logical_device_configuration(cpu)
    if gpus_of(config) or max(count, 1) <= max(1, len(present or [])):
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        raise UserError(
            f"--replicas {count}: TensorFlow has started already; start a new process"
        ) from None


def resolve_precision(config: RunConfig) -> tuple[str, str]:
    """The precision to compute in, "float32" or "bfloat16", and the reason in a few words."""
    if config.precision != "auto":
        rough = config.precision == "bfloat16" and not gpus_of(config) and sums_roughly()
        though = ", though this CPU, without AVX-512, sums gradients roughly in it"
        return config.precision, f"as set{though if rough else ''}"
    gpus = gpus_of(config)
    if gpus:
        capabilities = [_compute_capability(gpu) for gpu in gpus]
        lowest = ".".join(str(part) for part in min(capabilities))
        native = min(capabilities) >= _BFLOAT16_GPU_CAPABILITY
        return ("bfloat16" if native else "float32"), f"GPU of compute capability {lowest}"
    found = sorted(_BFLOAT16_CPU_FLAGS & _cpu_flags())
    if found:
        return "bfloat16", f"this CPU has {', '.join(found)}"
    return "float32", "this CPU has no bfloat16 instructions"


def sums_roughly() -> bool:
    """Whether this CPU sums convolutions of bfloat16 numbers in bfloat16 as well.

    TensorFlow's own kernels for x86, which stand in where oneDNN's need AVX-512, do: there the
    gradient of a kernel over 1,024 ones came out as 512, and of a depthwise one as 256.
    """
    flags = _cpu_flags()
    return "sse2" in flags and "avx512f" not in flags


def resolve_jit(config: RunConfig) -> bool:
    """Whether to compile with XLA; "auto": on a GPU."""
    return bool(gpus_of(config)) if config.jit == "auto" else config.jit == "on"


def resolve_winograd(config: RunConfig) -> bool:
    """Whether 3×3 convolutions may go by Winograd's algorithm.

    "auto": on CPUs, where it was measured to be faster (docs/performance.md). GPUs' libraries
    choose such algorithms themselves.
    """
    if config.winograd != "auto":
        return config.winograd == "on"
    return not gpus_of(config)


def _compute_capability(gpu: tf.config.PhysicalDevice) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()
