"""What --data names: packed once, under a name made from the content."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from cyclegan_tf.data import portraits, sources
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.data.sources import cache_folder, open_data
from cyclegan_tf.errors import UserError
from tests.tiny import chart, few_people, pack_charts


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where packed shards go in this test."""
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of pictures."""
    pack_charts(tmp_path, trainA=4, trainB=3, testA=1, testB=1)
    return tmp_path / "pictures"


def counts(shards: Shards) -> list[int]:
    return [shards.manifest.count(split) for split in ("trainA", "trainB", "testA", "testB")]


def refusal(data: object) -> str:
    with pytest.raises(UserError) as caught:
        open_data(str(data))
    return str(caught.value)


def test_the_demo_is_drawn_once(cache, monkeypatch):
    monkeypatch.setattr(portraits, "demo_items", few_people(train=3, test=2))
    monkeypatch.setattr(sources, "usable_cores", lambda: 1)  # One worker draws in this process.
    shards = open_data("demo")
    assert counts(shards) == [3, 3, 2, 2]
    assert shards.manifest.paired
    assert shards.folder.parent == cache
    monkeypatch.setattr(portraits, "draw", None)
    assert open_data("demo").folder == shards.folder


def test_a_folder_is_packed_once(cache, pictures):
    shards = open_data(str(pictures))
    assert counts(shards) == [4, 3, 1, 1]
    assert not shards.manifest.paired
    times = {path: path.stat().st_mtime_ns for path in shards.folder.iterdir()}
    assert open_data(f"{pictures}/").folder == shards.folder
    assert {path: path.stat().st_mtime_ns for path in shards.folder.iterdir()} == times
    assert [path.name for path in cache.iterdir()] == [shards.folder.name]


def test_a_start_reads_each_picture_once(cache, pictures, monkeypatch):
    open_data(str(pictures))
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    open_data(str(pictures))
    found = sorted(path for path in read if pictures in path.parents)
    assert found == sorted(path for path in pictures.rglob("*") if path.is_file())


def test_a_cache_that_cannot_be_written_names_the_variable(cache, pictures, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfrecords_tools.build.locked", full)
    assert refusal(pictures).startswith(f"CYCLEGAN_TF_CACHE {cache}/pictures-")


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", "")
    assert cache_folder() == Path("~/.cache/cyclegan_tf").expanduser()


def test_a_cache_in_the_home_of_nobody_names_the_variable(pictures, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", "~nobody-of-that-name/cache")
    message = "CYCLEGAN_TF_CACHE ~nobody-of-that-name/cache: there is no such home directory"
    assert refusal(pictures).startswith(message)


def test_the_packed_folder_is_named_after_the_pictures_folder(cache, pictures):
    assert open_data(str(pictures)).folder.name.startswith("pictures-")


def test_other_pictures_are_packed_anew(cache, pictures):
    before = open_data(str(pictures)).folder
    chart(9).save(pictures / "trainA" / "9.png")
    after = open_data(str(pictures))
    assert after.folder != before
    assert counts(after) == [5, 3, 1, 1]


def test_equal_pictures_elsewhere_are_not_packed_again(cache, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "elsewhere" / "pictures")
    before = open_data(str(pictures)).folder
    assert open_data(str(tmp_path / "elsewhere" / "pictures")).folder == before


def test_a_folder_of_shards_is_used_where_it_is(cache, pictures):
    folder = pictures.parent / "shards"
    assert open_data(str(folder)).folder == folder
    assert not cache.exists()


@pytest.mark.parametrize("split", ["trainA", "trainB"])
def test_one_picture_is_too_few(cache, pictures, split):
    for path in sorted((pictures / split).iterdir())[1:]:
        path.unlink()
    message = refusal(pictures)
    assert message.startswith(f"--data {pictures}: {split} has 1 usable picture(s)")
    assert "at least 2" in message


@pytest.mark.parametrize(("count", "is_enough"), [(2, False), (3, True)])
def test_a_picture_that_is_held_out_counts_for_tests_alone(cache, pictures, count, is_enough):
    shutil.rmtree(pictures / "testA")
    for path in sorted((pictures / "trainA").iterdir())[count:]:
        path.unlink()
    if is_enough:
        assert counts(open_data(str(pictures))) == [2, 3, 1, 1]
    else:
        assert refusal(pictures).endswith("one more to hold out where there is no testA")


def test_a_name_that_is_too_long_names_the_flag(cache):
    assert (
        refusal(300 * "x")
        == f"--data {300 * 'x'}: cannot be read (File name too long); name another"
    )


def test_a_long_name_of_a_folder_is_cut(cache, pictures):
    long = pictures.with_name(250 * "x")
    pictures.rename(long)
    assert open_data(str(long)).folder.name.startswith(200 * "x" + "-")


def test_a_remote_cache_is_refused(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", "gs://bucket/cache")
    assert (
        refusal(pictures)
        == "CYCLEGAN_TF_CACHE gs://bucket/cache: must be a local folder, not a URL"
    )
    assert not (tmp_path / "gs:").exists()


def test_a_missing_folder_names_the_flag(cache, tmp_path):
    assert refusal(tmp_path / "nowhere").startswith(
        f"--data {tmp_path / 'nowhere'}: does not exist"
    )
    assert not cache.exists()


def test_an_empty_domain_names_the_flag(cache, pictures):
    shutil.rmtree(pictures / "trainB")
    (pictures / "trainB").mkdir()
    assert refusal(pictures).startswith(f"--data {pictures}: trainB holds no files")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_folder_of_shards_is_refused_before_the_training(cache, pictures, damage):
    shard = sorted((pictures.parent / "shards").glob("trainB-*"))[0]
    damage(shard)
    assert refusal(shard.parent).startswith(f"{shard}: ")


def test_a_cache_that_cannot_be_made_names_the_variable(pictures, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", str(tmp_path / "file" / "cache"))
    message = refusal(pictures)
    assert str(tmp_path / "file" / "cache") in message
    assert "CYCLEGAN_TF_CACHE" in message


def test_the_cache_is_below_home_unless_the_variable_says_else(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CYCLEGAN_TF_CACHE", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "cyclegan_tf"
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", "~/elsewhere")
    assert cache_folder() == tmp_path / "elsewhere"


def test_packing_apart_passes_on_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "trainA").mkdir()
    with pytest.raises(UserError, match=f"^--data {tmp_path}: "):
        open_data(str(tmp_path), apart=True)


def end_at_once(_data: str, _sender) -> None:
    os._exit(9)


def test_packing_apart_that_is_ended_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_pack_and_send", end_at_once)
    with pytest.raises(UserError, match=r"its packing was ended \(exit status 9\); the same"):
        open_data(str(tmp_path), apart=True)


def answer_and_go_on(data: str, sender) -> None:
    sender.send(UserError("wrong"))
    time.sleep(0.5)
    (Path(data) / "tidied up").touch()


def test_packing_apart_is_left_to_end_by_itself_when_it_has_answered(tmp_path, monkeypatch):
    """Ended while it tidies up, it would leave warnings below the error's line."""
    monkeypatch.setattr(sources, "_pack_and_send", answer_and_go_on)
    with pytest.raises(UserError, match="wrong"):
        open_data(str(tmp_path), apart=True)
    assert (tmp_path / "tidied up").exists()
