"""Tiny runs, pictures and films, and code that runs in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# In a fresh process, a SavedModel must load without any of these.
_BLOCKED = ("tensorflow_addons", "cyclegan_tf", "tfrecords_tools", "tf_keras")


def make_run(folder: Path, config) -> Path:
    """A run directory as training leaves it, with untrained networks."""
    import tensorflow as tf

    from cyclegan_tf.training.checkpoints import Checkpoints
    from cyclegan_tf.training.state import TrainingState

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    state = TrainingState(config, tf.distribute.MirroredStrategy(["CPU:0"]), "float32")
    Checkpoints(state, folder, keep=1).save()
    return folder


def distinct_generators(tiny_config, **overrides) -> dict[str, Any]:
    """Tiny configs by preset, one for every generator that the presets have among them.

    ``overrides`` are settings for all of them.
    """
    from cyclegan_tf.presets import PRESETS

    first = {}
    for preset in PRESETS:
        config = tiny_config(preset, generator_blocks=1, **overrides)
        first.setdefault(config.generator, (preset, config))
    return dict(first.values())


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with some noise: uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def run_fresh(code: str, *arguments: object, python: str = sys.executable) -> Any:
    """Runs ``code`` in a new process that cannot import this project; returns its printed JSON."""
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({_BLOCKED}))\n"
    command = [python, "-I", "-c", blocked + code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def still_and_moving(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A film's frames: a still background with camera noise, and a red square that moves.

    Returns:
        uint8 [frames, height, width, 3].
    """
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    background = np.stack([columns * 3, rows * 4, 255 - columns * 3], axis=-1).clip(0, 255)
    film = background + random.normal(0, 3, (frames, height, width, 3))
    for number, frame in enumerate(film):
        left = 4 * number % (width - 16)
        frame[16:32, left : left + 16] = [220, 40, 40]
    return film.clip(0, 255).astype(np.uint8)


def write_film(path: Path, frames: np.ndarray, rate: int = 12, sound: int = 0) -> Path:
    """Encodes a film with so many tracks of ``sound``, each a tone and in a language of its own."""
    import av

    gif = path.suffix == ".gif"
    with av.open(str(path), "w") as output:
        video = output.add_stream("gif" if gif else "libx264", rate=rate)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "rgb8" if gif else "yuv420p"
        tones = [output.add_stream("aac", rate=48000) for _ in range(sound)]
        for tone, language in zip(tones, ("fra", "deu")):
            tone.metadata["language"] = language
        for frame in frames:
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(video.encode(None))
        for number, tone in enumerate(tones):
            _write_tone(av, output, tone, len(frames) / rate, hertz=440 * (number + 1))
    return path


def _write_tone(av, output, stream, seconds: float, hertz: int) -> None:
    times = np.arange(int(48000 * seconds)) / 48000
    wave = (0.3 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)[None]
    for start in range(0, wave.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(
            wave[:, start : start + 1024], format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = 48000, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def read_film(path: Path) -> tuple[np.ndarray, list[float], list[bytes]]:
    """A film's frames, their times, and the packets of its first track of sound.

    Returns:
        uint8 [frames, height, width, 3], and two lists.
    """
    import av

    frames, times = [], []
    with av.open(str(path)) as film:
        for frame in film.decode(film.streams.video[0]):
            matrix, frame.colorspace = frame.colorspace, 2  # see video.py
            frames.append(frame.to_ndarray(format="rgb24", src_colorspace=matrix))
            times.append(float(frame.pts * frame.time_base))
    return np.stack(frames), times, next(iter(read_sound(path)), [])


def read_sound(path: Path) -> list[list[bytes]]:
    """The packets of each of a film's tracks of sound."""
    import av

    with av.open(str(path)) as film:
        tracks = {track.index: [] for track in film.streams.audio}
        for packet in film.demux(film.streams.audio) if tracks else ():
            if packet.dts is not None:
                tracks[packet.stream.index].append(bytes(packet))
    return list(tracks.values())
