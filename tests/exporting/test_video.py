"""GIFs and films, on clips that this project draws."""

from __future__ import annotations

import struct
import weakref
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from cyclegan_tf.exporting import translator, video
from cyclegan_tf.exporting.pictures import BadFile
from cyclegan_tf.exporting.smoothing import FlickerMeter, Smoother, change_between
from cyclegan_tf.exporting.video import FilmOptions, translate_film
from tests.exporting.helpers import (
    pixels,
    read_film,
    read_sound,
    still_and_moving,
    write_film,
)

av = pytest.importorskip("av")


def same(frames: np.ndarray) -> np.ndarray:
    return frames


def inverted(frames: np.ndarray) -> np.ndarray:
    return 255 - frames


class Flickering:
    """A translation in which every frame is lighter or darker as a whole, as from instance norm."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        shades = self.random.integers(-12, 13, len(frames))[:, None, None, None]
        return np.clip(frames.astype(int) + shades, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(
        tmp_path_factory.mktemp("film") / "a.mp4", still_and_moving(20), rate=10, sound=1
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_frames_times_and_sound_come_through(film, tmp_path, suffix):
    target = tmp_path / f"b{suffix}"
    report = translate_film(film, target, inverted, FilmOptions(batch_size=3))
    before, times, sound = read_film(film)
    after, new_times, new_sound = read_film(target)
    assert report.frames == len(after) == 20
    # A Matroska file starts with the sound, whose first packet here lies before the first frame.
    np.testing.assert_allclose(np.diff(new_times), np.diff(times), atol=2e-3)
    assert len(sound) > 80
    assert new_sound == sound
    # Coding costs some levels, a wrong colour matrix or a shifted frame far more.
    assert np.abs(after.astype(int) - (255 - before.astype(int))).mean() < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_frame_stands_as_long_as_it_did(tmp_path, suffix):
    """Also the last one, which no later frame ends."""
    source = write_gif(tmp_path / "a.gif", None)
    translate_film(source, tmp_path / f"b{suffix}", same, FilmOptions())
    with av.open(str(tmp_path / f"b{suffix}")) as film:
        assert film.duration / av.time_base == pytest.approx(1.85, abs=0.02)
    times = read_film(tmp_path / f"b{suffix}")[1]
    np.testing.assert_allclose(times, [0.0, 0.1, 0.3, 0.35], atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_every_track_of_sound_is_kept(tmp_path, suffix):
    source = write_film(tmp_path / "a.mp4", still_and_moving(12), sound=2)
    target = tmp_path / f"b{suffix}"
    translate_film(source, target, same, FilmOptions())
    one, other = read_sound(source)
    assert one != other
    assert read_sound(target) == [one, other]
    if suffix in (".mp4", ".mkv"):  # The others know some languages, or none.
        with av.open(str(target)) as film:
            assert [track.metadata["language"] for track in film.streams.audio] == ["fra", "deu"]


def test_sound_of_another_kind_of_film_is_not_lost_in_silence(film, tmp_path):
    with pytest.raises(BadFile, match=r"sound track 1 cannot be kept .*webm.* not support .aac"):
        translate_film(film, tmp_path / "b.webm", same, FilmOptions())
    assert list(tmp_path.iterdir()) == []


def test_frames_that_would_become_too_large(tmp_path):
    frames = [Image.fromarray(pixels(2000, 1, seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(BadFile, match="512 × 1024000 pixels at size 512, more than"):
        translate_film(tmp_path / "a.gif", tmp_path / "b.gif", same, FilmOptions(size=512))


def test_frames_arrive_in_batches_and_in_order(film, tmp_path):
    sizes = []

    def translate(frames):
        sizes.append(len(frames))
        return frames

    translate_film(film, tmp_path / "b.mp4", translate, FilmOptions(batch_size=8))
    assert sizes == [8, 8, 4]


def test_a_batch_of_large_frames_is_no_larger_than_a_tile(film, tmp_path, monkeypatch):
    sizes = []

    def translate(frames):
        sizes.append(len(frames))
        return frames

    monkeypatch.setattr(translator, "TILE", 48)  # of frames with 48 × 64 and with 24 × 32 pixels
    translate_film(film, tmp_path / "b.mp4", translate, FilmOptions(batch_size=8))
    assert sizes == [1] * 20
    sizes.clear()
    translate_film(film, tmp_path / "b.mp4", translate, FilmOptions(batch_size=8, size=24))
    assert sizes == [3] * 6 + [2]


def test_side_by_side_and_size(film, tmp_path):
    options = FilmOptions(size=24, side_by_side=True)
    translate_film(film, tmp_path / "b.mp4", inverted, options)
    frames, _, _ = read_film(tmp_path / "b.mp4")
    assert frames.shape[1:] == (24, 64, 3)
    left, right = frames[..., :32, :].astype(int), frames[..., 32:, :].astype(int)
    assert np.abs(left + right - 255).mean() < 6


def test_odd_sides_lose_one_pixel(film, tmp_path):
    translate_film(film, tmp_path / "b.mp4", same, FilmOptions(size=33))
    assert read_film(tmp_path / "b.mp4")[0].shape[1:] == (32, 44, 3)


def test_a_film_held_upright_stays_upright(film, tmp_path):
    """As phones record it: frames lie on their side, and the file says how to turn them."""
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the first track: the pictures
    quarter_to_the_right = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = struct.pack(">9i", *quarter_to_the_right)
    (tmp_path / "a.mp4").write_bytes(data)
    translate_film(tmp_path / "a.mp4", tmp_path / "b.mp4", same, FilmOptions())
    lying, upright = read_film(film)[0], read_film(tmp_path / "b.mp4")[0]
    expected = np.rot90(lying, -1, axes=(1, 2)).astype(int)
    assert np.abs(upright - expected).mean() < 3


def test_pixels_that_are_not_square_stay_so(tmp_path):
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in still_and_moving(4):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    translate_film(source, tmp_path / "b.mp4", same, FilmOptions())
    with av.open(str(tmp_path / "b.mp4")) as result:
        assert result.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("pause", [0, 8])
def test_an_avi_film_with_frames_out_of_order(tmp_path, pause):
    source = tmp_path / "a.avi"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"bf": "3"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number, picture in enumerate(still_and_moving(20)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number + pause * (number >= 10)
            frame.time_base = Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert translate_film(source, tmp_path / "b.avi", same, FilmOptions()).frames == 20
    before, after = read_film(source), read_film(tmp_path / "b.avi")
    assert np.abs(after[0].astype(int) - before[0]).mean() < 3
    steps = np.rint(np.diff(after[1]) * 10).astype(int)
    assert len(steps) == 19 and (steps == 1).sum() == 19 - (pause > 0)
    assert abs(steps.sum() - 19 - pause) <= 4


def test_webm(film, tmp_path):
    source = write_webm(tmp_path / "a.webm", still_and_moving(6))
    translate_film(source, tmp_path / "b.webm", same, FilmOptions())
    with av.open(str(tmp_path / "b.webm")) as result:
        assert result.streams.video[0].codec_context.name == "vp9"


def write_webm(path, frames):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def write_gif(path, loop: int | None):
    """Four frames of unequal length, a corner transparent."""
    frames = []
    for number in range(4):
        alpha = np.full((24, 32), 255, np.uint8)
        alpha[:8, :8] = 0
        frames.append(Image.fromarray(np.dstack([pixels(24, 32, number), alpha])))
    options = {} if loop is None else {"loop": loop}
    durations = [100, 200, 50, 1500]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, disposal=2, **options
    )
    return path


@pytest.mark.parametrize("loop", [None, 0, 3])
def test_gif_keeps_times_transparency_and_repeats(tmp_path, loop):
    source = write_gif(tmp_path / "a.gif", loop)
    translate_film(source, tmp_path / "b.gif", same, FilmOptions())
    with Image.open(source) as before, Image.open(tmp_path / "b.gif") as after:
        assert after.info.get("loop") == before.info.get("loop") == loop
        assert after.n_frames == before.n_frames == 4
        for number in range(4):
            before.seek(number)
            after.seek(number)
            assert after.info["duration"] == before.info["duration"]
            old, new = (np.asarray(image.convert("RGBA"), int) for image in (before, after))
            np.testing.assert_array_equal(new[..., 3], old[..., 3])
            opaque = old[..., 3] > 0
            assert np.abs(new[opaque] - old[opaque]).mean() < 12


def test_memory_does_not_grow_with_the_film(tmp_path, monkeypatch):
    """Frames are let go: at no time are many alive, neither decoded nor translated."""
    source = write_film(tmp_path / "long.mp4", still_and_moving(60))
    alive, most, decoded, most_decoded = set(), 0, [], 0
    decode = video._picture

    def watched(*arguments):
        picture = decode(*arguments)
        decoded.append(weakref.ref(picture.pixels))
        return picture

    monkeypatch.setattr(video, "_picture", watched)

    class Watched(np.ndarray):
        def __array_finalize__(self, parent):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    def translate(frames):
        nonlocal most, most_decoded
        result = frames.copy().view(Watched)
        most = max(most, len(alive))
        most_decoded = max(most_decoded, sum(each() is not None for each in decoded))
        return result

    translate_film(source, tmp_path / "b.mp4", translate, FilmOptions(batch_size=4))
    assert 0 < most < 20
    assert 0 < most_decoded < 20


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_bad_film_is_reported_and_leaves_nothing(film, tmp_path, damage):
    contents = {"empty": b"", "text": b"no film " * 50, "truncated": film.read_bytes()[:900]}
    source = tmp_path / "a.mp4"
    source.write_bytes(contents[damage])
    with pytest.raises(BadFile):
        translate_film(source, tmp_path / "out" / "b.mp4", same, FilmOptions())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_film_that_cannot_be_written_names_no_file_that_nobody_knows(film, tmp_path):
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(BadFile) as error:
        translate_film(film, tmp_path / "b.mp4", same, FilmOptions())
    assert "unfinished" not in str(error.value)


# --- Flicker -------------------------------------------------------------------------------------


def flicker(film: np.ndarray, translated: np.ndarray) -> float:
    meter = FlickerMeter()
    for source, frame in zip(film, translated):
        meter.add(source, frame)
    return meter.value()


def test_flicker_is_the_change_where_nothing_moves():
    film = np.repeat(pixels(32, 32)[None] // 2, 9, axis=0)
    translated = film + np.array([0, 10] * 4 + [0], np.uint8)[:, None, None, None]
    assert flicker(film, film) == 0
    assert flicker(film, translated) == 10


def test_movement_is_no_flicker():
    film = still_and_moving(12)
    film[:] = np.where(film[..., :1] == 220, film, 128)  # the square alone, before a grey wall
    assert flicker(film, film) < 0.5


def test_what_stands_still_has_not_changed_at_all():
    frame = still_and_moving(1)[0]
    assert change_between(frame, frame).max() == 0
    lighter = np.full_like(frame, 60), np.full_like(frame, 70)
    np.testing.assert_allclose(change_between(*lighter), 10, atol=0.01)


def test_smoothing_reduces_flicker_and_leaves_movement_alone():
    film = still_and_moving(24)
    translated = Flickering()(film)
    smoother = Smoother(0.8)
    smoothed = np.stack([smoother.smooth(*pair) for pair in zip(film, translated)])
    before, after = flicker(film, translated), flicker(film, smoothed)
    assert before > 6
    assert after < 0.4 * before
    # In the middle of the square, which has moved there since the last frame, nothing is blended.
    for number in range(4, 12):
        place = (slice(20, 28), slice(4 * number + 12, 4 * number + 15))
        change = np.abs(smoothed[number][place].astype(int) - translated[number][place])
        assert change.mean() < 4


def test_no_smoothing_changes_nothing():
    film = still_and_moving(3)
    smoother = Smoother(0.0)
    for source, frame in zip(film, Flickering()(film)):
        np.testing.assert_array_equal(smoother.smooth(source, frame), frame)


def test_smooth_in_a_film(film, tmp_path):
    flickers = [
        translate_film(film, tmp_path / f"{smooth}.mp4", Flickering(), FilmOptions(smooth=smooth))
        for smooth in (0.0, 0.8)
    ]
    assert flickers[1].flicker < 0.4 * flickers[0].flicker


@pytest.mark.parametrize(("height", "matrix"), [(64, "ITU601"), (720, "ITU709")])
def test_frames_that_name_no_matrix_are_read_as_players_do(height, matrix):
    colour = np.full((height, 64, 3), (200, 60, 30), np.uint8)
    frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
    frame.colorspace = video._UNSPECIFIED
    assert np.abs(video._picture(frame, False).pixels.astype(int) - colour).max() <= 3
