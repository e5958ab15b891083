"""Which devices and which precision, with the hardware made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from cyclegan_tf.config import RunConfig
from cyclegan_tf.errors import UserError
from cyclegan_tf.training.devices import (
    make_strategy,
    resolve_jit,
    resolve_precision,
    resolve_winograd,
)
from tests.tiny import pack_charts


@pytest.fixture
def hardware(monkeypatch):
    """A function that sets what is found: the GPUs' compute capabilities, the CPU's flags."""

    def pretend(*capabilities: tuple[int, int] | None, cpu: str = "fpu avx2") -> None:
        gpus = [SimpleNamespace(capability=capability) for capability in capabilities]
        monkeypatch.setattr(
            tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else ["cpu"]
        )
        monkeypatch.setattr(
            tf.config.experimental,
            "get_device_details",
            lambda gpu: {"compute_capability": gpu.capability} if gpu.capability else {},
        )
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\nflags : {cpu}\n")

    return pretend


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_stands(hardware, precision):
    hardware((7, 0), cpu="fpu amx_bf16")
    assert resolve_precision(RunConfig(precision=precision)) == (precision, "as set")


def test_a_cpu_that_sums_roughly_says_so(hardware):
    hardware(cpu="fpu sse2 avx2")
    told = resolve_precision(RunConfig(precision="bfloat16"))[1]
    assert told.startswith("as set, though this CPU, without AVX-512, sums")
    assert resolve_precision(RunConfig(precision="float32"))[1] == "as set"
    hardware(cpu="fpu sse2 avx2 avx512f")
    assert resolve_precision(RunConfig(precision="bfloat16"))[1] == "as set"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f", "float32"),
        ("fpu avx512_bf16", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        ("fpu amx_bf16_not_quite", "float32"),
    ],
)
def test_a_cpu_gets_bfloat16_where_it_has_the_instructions(hardware, flags, expected):
    hardware(cpu=flags)
    precision, reason = resolve_precision(RunConfig())
    assert precision == expected
    assert "this CPU has" in reason


def test_a_machine_without_proc_gets_float32(hardware, monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    hardware()
    monkeypatch.setattr(Path, "read_text", missing)
    assert resolve_precision(RunConfig())[0] == "float32"


@pytest.mark.parametrize(
    ("capabilities", "expected", "lowest"),
    [
        ([(8, 0)], "bfloat16", "8.0"),
        ([(7, 5)], "float32", "7.5"),
        ([(12, 0), (8, 9)], "bfloat16", "8.9"),
        ([(9, 0), (7, 5)], "float32", "7.5"),
        ([None], "float32", "0.0"),
    ],
)
def test_the_weakest_gpu_decides_whatever_the_cpu(hardware, capabilities, expected, lowest):
    hardware(*capabilities, cpu="fpu amx_bf16")
    assert resolve_precision(RunConfig()) == (expected, f"GPU of compute capability {lowest}")


@pytest.mark.parametrize(
    ("gpus", "replicas", "devices"),
    [
        (0, 0, ["/cpu:0"]),
        (1, 0, ["/gpu:0"]),
        (2, 0, ["/gpu:0", "/gpu:1"]),
        (2, 1, ["/gpu:0"]),
        (1, 2, ["/cpu:0", "/cpu:1"]),
    ],
)
def test_every_gpu_is_used_unless_replicas_are_given(
    hardware, monkeypatch, gpus, replicas, devices
):
    hardware(*[(8, 0)] * gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names, *_: names)
    monkeypatch.setattr("cyclegan_tf.training.devices.split_cpu", lambda config: None)
    assert make_strategy(RunConfig(batch_size=2, replicas=replicas)) == devices


def test_virtual_cpu_devices_beside_gpus_count_as_a_cpu(hardware):
    hardware((9, 0), cpu="fpu avx2")
    few, more = RunConfig(batch_size=2, replicas=1), RunConfig(batch_size=2, replicas=2)
    assert (resolve_precision(few)[0], resolve_precision(more)[0]) == ("bfloat16", "float32")
    assert (resolve_jit(few), resolve_jit(more)) == (True, False)
    assert (resolve_winograd(few), resolve_winograd(more)) == (False, True)


@pytest.mark.parametrize("replicas", [0, 1, 2])
def test_so_many_replicas_on_the_cpu(replicas):
    strategy = make_strategy(RunConfig(batch_size=2, replicas=replicas))
    assert strategy.num_replicas_in_sync == max(1, replicas)
    total = strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)
    assert float(total) == max(1, replicas)


def test_a_batch_that_the_gpus_cannot_share_is_refused(hardware):
    hardware((8, 0), (8, 0))
    with pytest.raises(UserError, match="divisible by the 2 replicas; take 2, or --replicas 1"):
        make_strategy(RunConfig(batch_size=3))


@pytest.fixture
def workers(monkeypatch):
    """Two workers with two devices each, of which nobody is waited for."""
    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    strategy = SimpleNamespace(num_replicas_in_sync=4)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: strategy)
    return strategy


@pytest.mark.parametrize("replicas", [0, 4])
def test_workers_train_on_all_their_devices(workers, replicas):
    assert make_strategy(RunConfig(batch_size=8, replicas=replicas)) is workers


@pytest.mark.parametrize(
    ("batch", "replicas", "message"),
    [
        (8, 2, "--replicas 2: the workers of TF_CONFIG have 4 devices; leave it out"),
        (6, 0, "--batch-size 6: must be divisible by the 4 replicas; take 4, or fewer workers"),
    ],
)
def test_what_does_not_fit_the_workers_devices_is_refused(workers, batch, replicas, message):
    with pytest.raises(UserError) as caught:
        make_strategy(RunConfig(batch_size=batch, replicas=replicas))
    assert str(caught.value) == message


def test_more_virtual_devices_than_tensorflow_started_with_need_a_new_process():
    tf.constant(0.0)
    with pytest.raises(UserError, match="--replicas 3: TensorFlow has started already"):
        make_strategy(RunConfig(batch_size=3, replicas=3))


def test_pictures_are_packed_without_starting_tensorflow_where_replicas_come_after(tmp_path):
    pack_charts(tmp_path, trainA=2, trainB=2, testA=1, testB=1)
    code = """
import sys
from pathlib import Path
from cyclegan_tf.presets import make_config
from cyclegan_tf.train import _open_shards, _start_devices

if __name__ == "__main__":
    config = make_config("demo", data=sys.argv[1], replicas=2, batch_size=2)
    _open_shards(config, Path("run"))
    print(_start_devices(config).num_replicas_in_sync)
"""
    (tmp_path / "start.py").write_text(code, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "start.py", "pictures"],
        cwd=tmp_path,
        env={**os.environ, "CYCLEGAN_TF_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines()[-1:] == ["2"], result.stderr[-3000:]
    assert list((tmp_path / "cache").glob("pictures-*/manifest.json"))


@pytest.mark.parametrize(
    ("asked", "gpus", "used"),
    [
        ("on", [], True),
        ("off", [(9, 0)], False),
        ("auto", [], False),
        ("auto", [(7, 0)], True),
    ],
)
def test_xla_is_tried_on_a_gpu(hardware, asked, gpus, used):
    hardware(*gpus)
    assert resolve_jit(RunConfig(jit=asked)) == used


@pytest.mark.parametrize(
    ("asked", "gpus", "used"),
    [("auto", [], True), ("auto", [(8, 0)], False), ("on", [(8, 0)], True), ("off", [], False)],
)
def test_winograds_algorithm_is_for_cpus(hardware, asked, gpus, used):
    hardware(*gpus)
    assert resolve_winograd(RunConfig(winograd=asked)) == used


def test_tensor_float_32_is_on():
    tf.config.experimental.enable_tensor_float_32_execution(False)
    make_strategy(RunConfig())
    assert tf.config.experimental.tensor_float_32_execution_enabled()
