"""GIFs and films frame by frame, through PyAV, whose wheels bring ffmpeg's libraries along."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image

from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.pictures import BadFile, Picture, reason_of, unfinished_file
from cyclegan_tf.exporting.smoothing import FlickerMeter, Smoother
from cyclegan_tf.exporting.translator import most_at_once

_QUALITY = {"libx264": {"crf": "18"}, "libvpx-vp9": {"crf": "24", "b": "0"}}
_CODECS = {".gif": "gif", ".webm": "libvpx-vp9"}
# How many frames ahead of their turn an AVI film's times may be where it has B-frames.
_REORDERED = 4
_BT709, _UNSPECIFIED = 1, 2  # ffmpeg's numbers for colour matrices; HD video has the first
_HD_HEIGHT = 720
# A palette for every frame, so that no frame has to wait for the end of the film.
_GIF_FILTERS = (
    ("split", ""),
    ("palettegen", "stats_mode=single:reserve_transparent=1"),
    ("paletteuse", "new=1:dither=bayer"),
)


@dataclass(frozen=True)
class FilmOptions:
    """How a film is translated.

    Attributes:
        size: shorter side to which frames are brought first; None keeps theirs.
        side_by_side: whether the film itself stands on the left of its translation.
        smooth: strength of the smoothing between frames, 0 to below 1.
        batch_size: frames translated at once.
    """

    size: int | None = None
    side_by_side: bool = False
    smooth: float = 0.0
    batch_size: int = 8


@dataclass(frozen=True)
class FilmReport:
    """What came of a film: its frames, and the flicker of its translation (``FlickerMeter``)."""

    frames: int
    flicker: float | None


def translate_film(
    source: Path,
    target: Path,
    translate: Callable[[np.ndarray], np.ndarray],
    options: FilmOptions,
    on_frame: Callable[[], Any] = lambda: None,
) -> FilmReport:
    """Translates a GIF or a film in constant memory; all tracks of sound are copied as they are.

    Args:
        source: the film.
        target: where the translation goes; the suffix names the kind.
        translate: uint8 [batch, height, width, 3] to the same.
        options: how.
        on_frame: called after each frame.

    Raises:
        BadFile: if the film cannot be read or the translation not be written, or a track of sound
            does not fit into a file of the target's kind.
        UserError: if PyAV is not installed.
    """
    av = import_av()
    try:
        with unfinished_file(target) as unfinished, av.open(str(source)) as film:
            loop = _gif_loop(source) if target.suffix.lower() == ".gif" else None
            with _Writer(unfinished, film, loop) as writer:
                return _translate_frames(film, writer, translate, options, on_frame)
    except (av.error.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise BadFile(reason_of(error)) from error


def _translate_frames(
    film, writer: _Writer, translate, options: FilmOptions, on_frame
) -> FilmReport:
    smoother, meter, count = Smoother(options.smooth), FlickerMeter(), 0
    frames = ((frame, picture.resized(options.size)) for frame, picture in _frames(film, writer))
    for batch in _batches(frames, options.batch_size):
        translations = translate(np.stack([picture.pixels for _, picture in batch]))
        for (frame, picture), pixels in zip(batch, translations):
            smoothed = smoother.smooth(picture.pixels, pixels)
            meter.add(picture.pixels, smoothed)
            result = picture.with_pixels(smoothed)
            writer.write(frame, picture.beside(result) if options.side_by_side else result)
            count += 1
            on_frame()
    if not count:
        raise BadFile("holds no pictures")
    return FilmReport(count, meter.value())


def _frames(film, writer: _Writer) -> Iterator[tuple[Any, Picture]]:
    """The film's frames, upright; packets of sound go straight to the writer."""
    if not film.streams.video:
        raise BadFile("holds no pictures")
    streams = [film.streams.video[0], *film.streams.audio]
    streams[0].thread_type = "AUTO"
    for packet in film.demux(streams):
        if packet.stream.type == "audio":
            writer.copy_sound(packet)
            continue
        for frame in packet.decode():
            yield frame, _picture(frame, writer.keeps_alpha)


def _picture(frame, keep_alpha: bool) -> Picture:
    # PyAV 15 overlooks a matrix that equals the frame's own one.
    matrix, frame.colorspace = frame.colorspace, _UNSPECIFIED
    if matrix == _UNSPECIFIED and frame.height >= _HD_HEIGHT:
        matrix = _BT709  # as players take it
    pixels = frame.to_ndarray(format="rgba" if keep_alpha else "rgb24", src_colorspace=matrix)
    pixels = np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
    if keep_alpha:
        return Picture(pixels[..., :3], pixels[..., 3])
    return Picture(pixels)


def _batches(frames: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """As many frames at once as are allowed and fit."""
    for first in frames:
        rest = most_at_once(first[1].pixels, size) - 1
        yield [first, *itertools.islice(frames, rest)]


class _Writer:
    """Encodes frames with the film's own times.

    Sound that comes before the first frame waits for it: a file's streams, and the size of their
    pictures, must all be known before anything is written.
    """

    def __init__(self, path: Path, film, loop: int | None) -> None:
        self._av = import_av()
        options = {} if loop is None else {"loop": str(loop)}
        self._output = self._av.open(str(path), "w", options=options)
        self._film = film.streams.video[0] if film.streams.video else None
        self._is_gif = loop is not None
        suffix = path.suffix.lower()
        self._codec = _CODECS.get(suffix, "libx264")
        self._is_avi = suffix == ".avi"
        self._video = self._graph = None
        self._next = 0  # the number of the next frame of an AVI file
        self._durations: dict[int, int] = {}  # by time, of frames that are being encoded
        self._waiting: list[Any] = []
        tracks = () if self._is_gif else film.streams.audio
        self._sound = {track.index: self._copy_of(track) for track in tracks}

    @property
    def keeps_alpha(self) -> bool:
        return self._is_gif

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None and self._video is not None:
                self._encode(None)
        finally:
            self._output.close()

    def _copy_of(self, track):
        """A track of the result for one of the film's sound."""
        try:
            copy = self._output.add_stream_from_template(track)
        except ValueError as error:
            raise BadFile(f"sound track {track.index} cannot be kept ({error})") from error
        # Tracks are told apart by these.
        known = {key: track.metadata[key] for key in ("language", "title") if key in track.metadata}
        copy.metadata.update(known)
        return copy

    def copy_sound(self, packet) -> None:
        """Takes a packet of the film's sound, unchanged."""
        if packet.stream.index not in self._sound or packet.dts is None:
            return
        if self._video is None:
            self._waiting.append(packet)
            return
        packet.stream = self._sound[packet.stream.index]
        self._output.mux(packet)

    def write(self, original, picture: Picture) -> None:
        """Writes a picture at the time of the film's frame ``original``."""
        if self._video is None:
            self._start(picture, is_turned=original.rotation % 180 != 0)
        frame = self._encoded_form(picture)
        frame.pts, frame.time_base = original.pts, original.time_base
        if self._is_avi:
            frame.pts, frame.time_base = self._number(original), 1 / self._rate
        if self._graph is not None:
            self._graph.push(frame)
            frame = self._graph.pull()
        if original.duration and not self._is_avi:
            self._durations[frame.pts] = original.duration
        self._encode(frame)

    def _encode(self, frame) -> None:
        """Writes what the encoder gives back: packets of this frame or of earlier ones."""
        for packet in self._video.encode(frame):
            # Encoders leave it out, and no later time tells how long the last frame stands.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._output.mux(packet)

    def _number(self, original) -> int:
        """The place of a frame at an AVI file's rate: the next one, unless the film pauses there.

        An AVI film with B-frames tells when they are decoded, which is in another order.
        """
        slack = _REORDERED if self._film.codec_context.has_b_frames else 0
        number = self._next
        if original.pts is not None:
            own = round(original.pts * original.time_base * self._rate)
            number = own if own > self._next + slack else self._next
        self._next = number + 1
        return number

    def _start(self, picture: Picture, is_turned: bool) -> None:
        height, width = picture.pixels.shape[:2]
        self._rate = Fraction(self._film.average_rate or 25)
        options = dict(_QUALITY.get(self._codec, {}))
        if self._is_avi:
            options["bf"] = "0"
        self._video = self._output.add_stream(self._codec, rate=self._rate, options=options)
        context = self._video.codec_context
        # An AVI file stores no times: frames follow each other at its rate, as they are shown.
        context.time_base = 1 / self._rate if self._is_avi else self._film.time_base
        if self._is_gif:
            context.width, context.height, context.pix_fmt = width, height, "pal8"
            self._graph = _palette_graph(self._av, width, height, self._film.time_base)
        else:
            # Players expect colour at half resolution, for which the sides must be even.
            context.width, context.height = width // 2 * 2, height // 2 * 2
            context.pix_fmt, context.colorspace = "yuv420p", _BT709
            aspect = self._film.sample_aspect_ratio  # of pixels that are not square
            if aspect:
                context.sample_aspect_ratio = 1 / aspect if is_turned else aspect
        for packet in self._waiting:
            self.copy_sound(packet)
        self._waiting.clear()

    def _encoded_form(self, picture: Picture):
        if self._is_gif:
            pixels = np.dstack([picture.pixels, picture.alpha])
            return self._av.VideoFrame.from_ndarray(pixels, format="rgba")
        context = self._video.codec_context
        pixels = np.ascontiguousarray(picture.pixels[: context.height, : context.width])
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace=_BT709)


def _palette_graph(av, width: int, height: int, time_base):
    """RGBA frames to frames of at most 256 colours, each with a palette of its own."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("rgba"), time_base=time_base
    )
    split, palette, use = (graph.add(name, arguments) for name, arguments in _GIF_FILTERS)
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _gif_loop(source: Path) -> int:
    """How often a GIF repeats, in the words of ffmpeg: -1 not at all, 0 for ever."""
    if source.suffix.lower() != ".gif":
        return 0
    try:
        with Image.open(source, formats=("GIF",)) as image:
            return image.info.get("loop", -1)
    except (OSError, ValueError, SyntaxError):
        return 0


def import_av():
    """The package; UserError if it is not installed."""
    try:
        import av
        import av.filter
    except ImportError:
        raise UserError("GIFs and films need PyAV: pip install av") from None
    return av
