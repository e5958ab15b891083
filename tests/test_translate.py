"""The translate command: which files, where to, and what it says."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cyclegan_tf import translate
from cyclegan_tf.errors import run_command
from cyclegan_tf.exporting import translator
from cyclegan_tf.exporting.translator import Translator
from tests.exporting.helpers import make_run, pixels, still_and_moving, write_film
from tfrecords_tools.images import MAX_PIXELS


@pytest.fixture
def command(monkeypatch, capsys):
    """A function: the command with a model that inverts; returns its status and what it said."""
    monkeypatch.setattr(translator, "load", lambda *_: Translator(lambda images: 255 - images))

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            run_command(
                lambda _: translate.main(["--run-dir", "any", *(str(text) for text in arguments)])
            )
        out, err = capsys.readouterr()
        return exit.value.code, out + err

    return run


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def load(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def folder(tmp_path):
    """Pictures in a tree, a bad one, and files of other kinds."""
    root = tmp_path / "in"
    for seed, name in enumerate(("a.png", "deep/er/b.png", "deep/c.bmp", "D.PNG")):
        save(root / name, pixels(16, 16 + 4 * (seed % 2), seed))
    (root / "bad.png").write_bytes(b"not a picture")
    (root / "notes.txt").write_text("not for us", encoding="utf-8")
    (root / ".hidden.png").write_bytes(b"not for us")
    return root


def tree(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_folder_keeps_its_tree_and_a_bad_file_stops_nothing(command, folder, tmp_path):
    status, said = command(folder, "--output", tmp_path / "out")
    assert status == 1
    assert tree(tmp_path / "out") == ["D.PNG", "a.png", "deep/c.bmp", "deep/er/b.png"]
    for name in tree(tmp_path / "out"):
        np.testing.assert_array_equal(load(tmp_path / "out" / name), 255 - load(folder / name))
    assert "bad.png: cannot identify image file" in said
    assert "4 translated, 1 failed" in said


def test_files_and_patterns(command, folder, tmp_path):
    out = tmp_path / "out"
    assert command(folder / "a.png", "--output", out)[0] == 0
    assert tree(out) == ["a.png"]
    assert command(f"{folder}/**/*.bmp", "--output", out)[0] == 0
    assert tree(out) == ["a.png", "deep/c.bmp"]
    assert command(f"{folder}/deep/*/*.png", "--output", out)[0] == 0
    assert tree(out) == ["a.png", "deep/c.bmp", "er/b.png"]


def test_existing_results_are_left_unless_overwrite(command, folder, tmp_path):
    out = tmp_path / "out"
    (folder / "bad.png").unlink()
    save(out / "a.png", np.zeros((4, 4, 3), np.uint8))
    status, said = command(folder, "--output", out)
    assert status == 0
    assert "3 translated, 0 failed, 1 already there" in said
    assert load(out / "a.png").shape == (4, 4, 3)
    status, said = command(folder, "--output", out, "--overwrite")
    assert "4 translated, 0 failed" in said
    np.testing.assert_array_equal(load(out / "a.png"), 255 - load(folder / "a.png"))


def test_results_inside_the_input_folder_are_not_translated_again(command, folder):
    for _ in range(2):
        command(folder, "--output", folder / "out")
    assert tree(folder / "out") == ["D.PNG", "a.png", "deep/c.bmp", "deep/er/b.png"]


def test_results_are_not_what_a_shell_means_by_a_pattern(command, folder):
    """An unquoted `in/*` names the folder of the results beside the pictures."""
    for _ in range(2):
        status, said = command(folder / "a.png", folder / "out", "--output", folder / "out")
        assert status == 0
        assert tree(folder / "out") == ["a.png"]
        (folder / "out").mkdir(exist_ok=True)
    assert "left out: 1 × results in --output" in said
    (folder / "a.png").unlink()
    assert command(folder / "D.PNG", folder / "out", "--output", folder / "out")[0] == 0


def test_links_that_lead_nowhere_stop_nothing(command, folder, tmp_path):
    (folder / "self.png").symlink_to(folder / "self.png")
    (tmp_path / "other").mkdir()
    for name in ("dangling.png", "a.png"):
        (tmp_path / "other" / name).symlink_to(tmp_path / "nowhere")
    (folder / "dangling.png").symlink_to(tmp_path / "elsewhere")
    status, said = command(folder, tmp_path / "other", "--output", tmp_path / "out")
    assert status == 1
    assert "4 translated, 5 failed" in said
    assert "other/a.png: " in said


def test_a_name_that_is_no_text_can_be_printed(tmp_path):
    bad = tmp_path / "in" / os.fsdecode(b"no\xff.png")
    bad.parent.mkdir()
    bad.write_bytes(b"not a picture")
    flags = ["--model", tmp_path, bad.parent, "--output", tmp_path / "out", "--overwrite"]
    code = (
        "from cyclegan_tf import errors, translate\n"
        "from cyclegan_tf.exporting import translator\n"
        "translator.load = lambda *_: translator.Translator(lambda images: images)\n"
        "errors.run_command(lambda _: translate.main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *flags],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr.decode()
    assert rb"in/no\udcff.png: cannot identify" in result.stdout


def test_results_are_not_what_a_pattern_means(command, folder):
    for _ in range(2):
        said = command(f"{folder}/**/*.png", "--output", folder / "out")[1]
    assert tree(folder / "out") == ["a.png", "deep/er/b.png"]
    assert "left out: 2 × results in --output" in said


def test_results_may_go_where_a_pattern_starts_or_above(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert "would be replaced" in command("*.png", "--output", ".")[1]
    assert "1 translated" in command("deep/er/*.png", "--output", ".")[1]
    np.testing.assert_array_equal(load(folder / "b.png"), 255 - load(folder / "deep/er/b.png"))


def test_nothing_to_translate_is_an_error(command, tmp_path):
    (tmp_path / "empty").mkdir()
    status, said = command(tmp_path / "empty", "--output", tmp_path / "out")
    assert (status, "empty: holds nothing that can be translated" in said) == (2, True)


def test_files_of_other_kinds_in_a_folder_are_counted(command, folder, tmp_path):
    (folder / "deep" / "LICENSE").write_text("not for us, either", encoding="utf-8")
    said = command(folder, "--output", tmp_path / "out")[1]
    assert "left out: 1 × .txt, 1 × no suffix" in said


def test_nothing_is_written_outside_the_output(command, folder, tmp_path):
    outside = tmp_path / "outside"
    save(outside / "b.png", pixels(8, 8, 5))
    save(outside / "precious.png", pixels(8, 8, 6))
    before = {path: path.read_bytes() for path in outside.iterdir()}
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "er").symlink_to(outside)  # a folder of the results leads out
    (out / "a.png").symlink_to(outside / "precious.png")  # and so does a result
    (folder / "linked").symlink_to(outside)  # a folder of the input leads elsewhere
    (folder / "round").symlink_to(folder)
    status, said = command(folder, "--output", out, "--overwrite")
    assert status == 1
    assert "deep/er leads out of --output" in said
    assert {path: path.read_bytes() for path in outside.iterdir()} == before
    assert not (out / "a.png").is_symlink()
    np.testing.assert_array_equal(load(out / "a.png"), 255 - load(folder / "a.png"))
    assert "2 × a link to a folder" in said
    assert not (out / "linked").exists()
    assert not (out / "round").exists()
    assert command(tmp_path / "in" / ".." / "outside" / "b.png", "--output", out)[0] == 0
    assert (out / "b.png").is_file()


def test_two_inputs_with_one_result(command, folder, tmp_path):
    save(tmp_path / "other" / "a.png", pixels(8, 8))
    inputs = [folder / "a.png", tmp_path / "other" / "a.png", folder / "a.png"]
    status, said = command(*inputs, "--output", tmp_path / "out")
    assert status == 1
    assert "other/a.png: " in said
    assert "1 translated, 1 failed" in said


def test_a_result_never_replaces_its_source(command, folder):
    before = (folder / "a.png").read_bytes()
    status, said = command(folder / "a.png", "--output", folder, "--overwrite")
    assert status == 1
    assert "would be replaced by its own result" in said
    assert (folder / "a.png").read_bytes() == before


def test_size_and_side_by_side(command, folder, tmp_path):
    out = tmp_path / "out"
    command(folder / "a.png", "--output", out, "--size", 8, "--side-by-side")
    both = load(out / "a.png").astype(int)
    assert both.shape == (8, 16, 3)
    np.testing.assert_array_equal(both[:, :8] + both[:, 8:], np.full((8, 8, 3), 255))


def test_direction_and_weights_are_those_of_the_model(command, folder, tmp_path, monkeypatch):
    asked = []
    inverting = translator.load()
    monkeypatch.setattr(translator, "load", lambda *model: asked.append(model) or inverting)
    flags = ["--direction", "ba", "--weights", "best"]
    assert command(folder / "a.png", "--output", tmp_path / "out", *flags)[0] == 0
    assert asked == [(Path("any"), "ba", "best")]


def test_the_largest_size_is_that_of_the_largest_square():
    assert math.isqrt(MAX_PIXELS) == translate._LARGEST_SIZE


def test_a_picture_that_would_become_too_large_stops_nothing(command, tmp_path):
    save(tmp_path / "in" / "a.png", pixels(16, 16))
    save(tmp_path / "in" / "thin.png", pixels(2000, 1))
    status, said = command(tmp_path / "in", "--output", tmp_path / "out", "--size", 512)
    assert status == 1
    assert "thin.png: 512 × 1024000 pixels at size 512, more than 89,478,485" in said
    assert "1 translated, 1 failed" in said


def test_what_needs_too_much_memory_stops_nothing(command, tmp_path, monkeypatch):
    pytest.importorskip("av")

    def module(images):
        if images.shape[2] > 16:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return tf.constant(images)

    network = translator._through_tensorflow(module)
    monkeypatch.setattr(translator, "load", lambda *_: Translator(network))
    for name, width in (("a", 20), ("b", 20), ("c", 16)):
        save(tmp_path / "in" / f"{name}.png", pixels(16, width))
    write_film(tmp_path / "in" / "d.mp4", still_and_moving(3))
    status, said = command(tmp_path / "in", "--output", tmp_path / "out")
    assert status == 1
    assert said.count(": needs more memory than there is") == 3
    assert "1 translated, 3 failed" in said
    assert tree(tmp_path / "out") == ["c.png"]


def test_pictures_of_one_size_are_translated_together(monkeypatch, tmp_path):
    batches = []

    def network(images):
        batches.append(len(images))
        return images

    monkeypatch.setattr(translator, "load", lambda *_: Translator(network))
    for number, side in enumerate([16] * 5 + [12] * 2 + [16]):
        save(tmp_path / "in" / f"{number}.png", pixels(side, side, number))
    flags = ["--run-dir", "any", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert translate.main([*flags, "--batch-size", "4"]) == 0
    assert batches == [4, 1, 2, 1]
    for number in range(8):
        name = f"{number}.png"
        np.testing.assert_array_equal(load(tmp_path / "out" / name), load(tmp_path / "in" / name))


def test_films_beside_pictures_with_the_flicker(command, folder, tmp_path):
    pytest.importorskip("av")
    write_film(folder / "film.mp4", still_and_moving(9), sound=1)
    (folder / "bad.gif").write_bytes(b"no film")
    status, said = command(folder, "--output", tmp_path / "out", "--smooth")
    assert status == 1
    assert re.search(r"film\.mp4: 9 frames, flicker \d+\.\d\d levels of 255", said)
    assert "5 translated, 2 failed" in said
    assert not (tmp_path / "out" / "bad.gif").exists()


def test_without_pyav_nothing_is_begun(command, folder, tmp_path, monkeypatch):
    (folder / "film.gif").write_bytes(b"not looked at")
    monkeypatch.setitem(sys.modules, "av", None)
    status, said = command(folder, "--output", tmp_path / "out")
    assert (status, said) == (2, "error: GIFs and films need PyAV: pip install av\n")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_read_has_failed(command, folder, tmp_path, monkeypatch):
    def scandir(path, original=os.scandir):
        if os.fspath(path).endswith("er"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    status, said = command(folder, "--output", tmp_path / "out")
    assert status == 1
    assert f"{folder}/deep/er: cannot be read (Permission denied)" in said
    assert "3 translated, 2 failed" in said


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--size", "7"], "--size 7: must be keep or a number of pixels from 8 to 9459"),
        (["--size", "9460"], "--size 9460: must be keep or a number of pixels from 8 to 9459"),
        (["--smooth", "1"], "--smooth 1.0: must be from 0 to 0.95"),
        (["--smooth", "a.mp4"], "--smooth a.mp4: must be a number from 0 to 0.95; without one, "),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--model", "m"], "not allowed with argument"),
        (["nowhere.png"], "nowhere.png: no such file or folder, and no pattern"),
    ],
)
def test_wrong_flags_are_one_line(command, folder, tmp_path, flags, message):
    status, said = command(folder, "--output", tmp_path / "out", *flags)
    assert status == 2
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_of_file_that_was_named(command, folder, tmp_path):
    status, said = command(folder / "notes.txt", "--output", tmp_path / "out")
    assert status == 1
    assert "notes.txt: of an unknown kind; must be one of .jpg" in said


@pytest.mark.parametrize("output", ["a.png", "a.png/out"])
def test_the_output_is_a_file_or_below_one(command, folder, output):
    status, said = command(folder, "--output", folder / output)
    assert (status, "a.png is no folder; name another" in said) == (2, True)


def test_the_command_with_a_real_run(tiny_config, tmp_path):
    """In a process of its own, from the flags to the file."""
    run = make_run(tmp_path / "run", tiny_config())
    picture = save(tmp_path / "a.png", pixels(18, 22))
    flags = ["--run-dir", run, picture, "--output", tmp_path / "out", "--direction", "ba"]
    command = [sys.executable, "-m", "cyclegan_tf.translate", *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "1 translated, 0 failed\n"
    assert load(tmp_path / "out" / "a.png").shape == (18, 22, 3)
