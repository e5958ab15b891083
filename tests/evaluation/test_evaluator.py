"""The evaluator: each score against a computation of its own, on generators of known behaviour."""

from __future__ import annotations

import dataclasses
import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow import keras

from cyclegan_tf.config import DataConfig
from cyclegan_tf.data import pipeline, portraits
from cyclegan_tf.data.damage import mend
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation.evaluator import Evaluator
from cyclegan_tf.evaluation.features import FeatureNetwork
from cyclegan_tf.evaluation.metrics import frechet_distance, kernel_distance, paired_scores
from cyclegan_tf.models.networks import Generators
from tests.tiny import pack_charts, pack_demo, with_shards_of
from tfrecords_tools.build import build

PEOPLE, SIZE = 10, 32  # more than are translated at once
DATA, SMALL = DataConfig(image_size=SIZE), DataConfig(image_size=16)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    return pack_demo(tmp_path_factory.mktemp("data") / "shards", train=12, test=PEOPLE)


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    """Features that one can compute by hand: the means of the four quarters of 8 × 8 pixels."""
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))
    model = keras.Model(image, [pooled, image])
    return FeatureNetwork("quarters", 8, model, lambda pixels: pixels / 255.0)


@pytest.fixture(scope="module")
def people() -> dict[str, np.ndarray]:
    """The test pictures in the order of their names, without the shards: uint8 [n, 32, 32, 3]."""
    items = portraits.demo_items(size=32, train=12, test=PEOPLE)
    return {
        split: np.stack(
            [
                np.asarray(Image.open(io.BytesIO(item.encode())))
                for item in items
                if item.split == split
            ]
        )
        for split in portraits.SPLITS
    }


def quarters(images: np.ndarray) -> np.ndarray:
    """What ``network`` sees in uint8 pictures, by another way."""
    small = tf.image.resize(images, (8, 8), method="bicubic", antialias=True)
    small = np.clip(np.round(small), 0, 255) / 255
    return small.reshape(-1, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(-1, 12)


def darker(images: tf.Tensor, training: bool) -> tf.Tensor:
    """Takes 20 levels from each channel."""
    assert not training
    return images - 20 / 127.5


def brighter(images: tf.Tensor, training: bool) -> tf.Tensor:
    assert not training
    return images + 30 / 127.5


def lookup(source: np.ndarray, target: np.ndarray):
    """A generator that has learnt by heart what becomes of each picture of ``source``."""

    def translate(images: tf.Tensor, training: bool) -> tf.Tensor:
        differences = tf.abs(images[:, tf.newaxis] - source[tf.newaxis])
        nearest = tf.argmin(tf.reduce_sum(differences, axis=[2, 3, 4]), axis=1)
        return tf.gather(tf.constant(target), nearest)

    return translate


def keep(images: tf.Tensor, training: bool) -> tf.Tensor:
    return images


def test_cycle_and_identity_errors_are_levels_of_each_direction(shards):
    scores = Evaluator(shards, DATA, None).evaluate(Generators(darker, brighter))
    found = [
        [scores[direction][f"{kind}_error"] for kind in ("cycle", "identity")]
        for direction in ("ab", "ba")
    ]
    np.testing.assert_allclose(found, [[10, 20], [10, 30]], rtol=1e-4)


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_a_single_generator_is_scored_in_its_direction_alone(shards, direction):
    alone = Generators(*(darker if name == direction else None for name in ("ab", "ba")))
    scores = Evaluator(shards, DATA, None).evaluate(alone)
    assert list(scores) == [direction]
    assert set(scores[direction]) == {"identity_error", "checkerboard"}  # no cycle
    np.testing.assert_allclose(scores[direction]["identity_error"], 20, rtol=1e-4)


def test_a_pattern_of_upsampling_is_seen(shards):
    pattern = np.indices((SIZE, SIZE)).sum(axis=0) % 2 * 0.2

    def spoil(images: tf.Tensor, training: bool) -> tf.Tensor:
        return images + pattern[np.newaxis, :, :, np.newaxis].astype(np.float32)

    evaluator = Evaluator(shards, DATA, None)
    scores, baselines = evaluator.evaluate(Generators(spoil, keep)), evaluator.baselines()
    assert scores["ab"]["checkerboard"] > 5 * baselines["untranslated"]["ab"]["checkerboard"]
    kept, real = scores["ba"]["checkerboard"], baselines["real"]["ab"]["checkerboard"]
    assert kept == pytest.approx(real)  # both of the real B


def test_fid_and_kid_are_those_of_the_translated_against_the_real_target(shards, network, people):
    scores = Evaluator(shards, DATA, network).evaluate(Generators(darker, brighter))
    moved = {
        "ab": np.clip(people["testA"].astype(int) - 20, 0, 255).astype(np.uint8),
        "ba": np.clip(people["testB"].astype(int) + 30, 0, 255).astype(np.uint8),
    }
    for direction, target in (("ab", "testB"), ("ba", "testA")):
        one, other = quarters(moved[direction]), quarters(people[target])
        found = scores[direction]
        assert found["fid_quarters"] == pytest.approx(frechet_distance(one, other), rel=1e-3)
        # The order of the pictures, and with it the subsets, is that of the shards.
        mean, deviation = kernel_distance(one, other, subsets=2000)
        assert found["kid_quarters"] == pytest.approx(mean, abs=0.3 * deviation)
        assert found["kid_sd_quarters"] == pytest.approx(deviation, rel=0.3)


def test_scores_against_the_truth_do_not_depend_on_the_order(shards, network, people):
    scores = Evaluator(shards, DATA, network, paired=True).evaluate(Generators(keep, keep))
    for direction in ("ab", "ba"):
        expected = paired_scores(people["testA"], people["testB"])
        distance = network.distances(people["testA"], people["testB"]).mean()
        assert expected["mae"] > 1.0
        found = {name: scores[direction][name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-4)
        assert scores[direction]["distance_quarters"] == pytest.approx(distance, rel=1e-4)


@pytest.mark.parametrize("order", [1, -1], ids=["as packed", "B backwards"])
def test_pictures_are_paired_by_name_whatever_their_order(shards, people, order):
    a, b = (
        images.astype(np.float32) / 127.5 - 1.0 for images in (people["testA"], people["testB"])
    )
    read = with_shards_of(shards, "testB", lambda row: row[::order])
    scores = Evaluator(read, DATA, None, paired=True).evaluate(
        Generators(lookup(a, b), lookup(b, a))
    )
    for direction in ("ab", "ba"):
        assert scores[direction]["mae"] == 0.0
        assert scores[direction]["ssim"] == pytest.approx(1.0)


def test_baselines_are_the_untranslated_and_other_real_pictures(shards, network, people):
    evaluator = Evaluator(shards, DATA, network, paired=True)
    kept = evaluator.evaluate(Generators(keep, keep))
    baselines = evaluator.baselines()
    for direction, target in (("ab", "B"), ("ba", "A")):
        untranslated = baselines["untranslated"][direction]
        assert untranslated == pytest.approx({name: kept[direction][name] for name in untranslated})
        real = baselines["real"][direction]
        assert set(real) == {"checkerboard", "fid_quarters", "kid_quarters", "kid_sd_quarters"}
        # As many training pictures as test pictures, whichever the shards begin with.
        every = frechet_distance(
            quarters(people[f"train{target}"]), quarters(people[f"test{target}"])
        )
        assert real["fid_quarters"] == pytest.approx(every, rel=0.5)
        assert real["kid_quarters"] < untranslated["kid_quarters"]


def test_real_pictures_are_as_many_as_those_whose_place_they_take(tmp_path, network):
    shards = pack_charts(tmp_path, trainA=12, trainB=12, testA=5, testB=9)

    def seen(split: str, limit: int) -> np.ndarray:
        images = np.stack([image for image, _ in pipeline.test_images(shards, split, DATA, limit)])
        return network.features(pipeline.to_pixels(images))

    evaluator = Evaluator(shards, DATA, network)
    assert evaluator.real_counts() == {"B": 5, "A": 9}
    real = evaluator.baselines()["real"]
    for direction, target, count in (("ab", "B", 5), ("ba", "A", 9)):
        expected = frechet_distance(seen(f"train{target}", count), seen(f"test{target}", -1))
        assert real[direction]["fid_quarters"] == pytest.approx(expected, rel=1e-3)
    few = Evaluator(with_shards_of(shards, "trainA", lambda row: ()), DATA, network)
    assert few.real_counts() == {"B": 5, "A": 0}
    assert set(few.baselines()["real"]["ba"]) == {"checkerboard"}


def test_fewer_pictures_are_the_first_ones(shards, network):
    few = Evaluator(shards, DATA, network, max_images=5)
    assert few.protocol() == {
        "data": f"demo ({shards.manifest.fingerprint[:8]})",
        "pictures": "5 of testA, 5 of testB",
        "resize": "bicubic to 32",
        "resize for features": "bicubic to 8",
        "features": "quarters",
        "kid": "100 subsets of 2",
    }
    kept = few.evaluate(Generators(keep, keep))["ab"]
    every = Evaluator(shards, DATA, network).evaluate(Generators(keep, keep))["ab"]
    assert kept["cycle_error"] == 0.0
    assert kept["fid_quarters"] != pytest.approx(every["fid_quarters"], rel=1e-3)


def test_too_few_pictures_are_refused(tmp_path, network):
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=4, testB=3)
    with pytest.raises(UserError, match=r"3 test picture\(s\) of B .* at least 4 are needed"):
        Evaluator(shards, SMALL, network)
    assert Evaluator(shards, SMALL, None).protocol()["pictures"] == "4 of testA, 3 of testB"


def test_places_of_a_tfds_data_set_are_no_names_of_pairs(tmp_path):
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=4, testB=4)
    manifest = dataclasses.replace(shards.manifest, source="tfds:cycle_gan/maps")
    shards = dataclasses.replace(shards, manifest=manifest)
    Evaluator(shards, SMALL, None)
    with pytest.raises(UserError, match=r"--paired: tfds:cycle_gan/maps carries no file names"):
        Evaluator(shards, SMALL, None, paired=True)


def test_pairs_with_other_names_are_refused(tmp_path):
    fewer = pack_charts(tmp_path, trainA=4, trainB=4, testA=4, testB=3)
    with pytest.raises(UserError, match=r"--paired: .*: testB has no 3\.png, which testA has"):
        Evaluator(fewer, SMALL, None, paired=True)
    words = r"--mine: .*: testB has no 3\.png, which testA has; "
    with pytest.raises(UserError, match=words):
        Evaluator(fewer, SMALL, None, paired=True, paired_flag="--mine", max_images=4)
    with pytest.raises(UserError, match=r"or give --most 3 for those that have one$"):
        Evaluator(fewer, SMALL, None, paired=True, limit_flag="--most")
    assert Evaluator(fewer, SMALL, None, paired=True, max_images=3).protocol()["pairs"] == 3
    # A mended shard has a neighbour in a broken record's place.
    (tmp_path / "mended").mkdir()
    mended = dataclasses.replace(fewer, mended=tmp_path / "mended")
    assert Evaluator(mended, SMALL, None, paired=True).protocol()["pairs"] == 3


def test_fewer_pairs_are_those_of_the_first_names_in_whatever_order_they_lie(tmp_path):
    """Domains of different sizes have different numbers of shards, and so another order."""
    both = pack_charts(tmp_path, trainA=4, trainB=4, testA=9, testB=9)
    build(str(tmp_path / "pictures"), tmp_path / "five", shards=5, workers=1, quiet=True)
    five = Shards.open(tmp_path / "five")
    for split in ("trainB", "testB"):
        for shard in five.manifest.splits[split]:
            shutil.copy(tmp_path / "five" / shard.file, both.folder)
    other = five.manifest.splits["testB"]
    shards = with_shards_of(both, "testB", lambda row: other)
    names = [pipeline.picture_names(shards, split) for split in ("testA", "testB")]
    assert names[0] != names[1]
    evaluator = Evaluator(shards, SMALL, None, paired=True, max_images=4)
    assert evaluator.protocol()["pictures"] == "4 of testA, 4 of testB"
    assert evaluator.protocol()["pairs"] == 4
    for domain in "AB":
        names = [name.numpy() for _, name in evaluator._test_images[domain]]
        assert sorted(names) == [b"0.png", b"1.png", b"2.png", b"3.png"]
        assert [names[place] for place in evaluator._places[domain]] == sorted(names)


def test_pictures_without_a_partner_do_not_count_where_pairs_are_chosen(tmp_path):
    shards = pack_charts(tmp_path, trainA=4, trainB=4, testA=5, testB=2)
    (tmp_path / "mended").mkdir()
    mended = dataclasses.replace(shards, mended=tmp_path / "mended")
    protocol = Evaluator(mended, SMALL, None, paired=True, max_images=3).protocol()
    assert (protocol["pictures"], protocol["pairs"]) == ("2 of testA, 2 of testB", 2)


@pytest.mark.parametrize(
    ("preprocess", "told"),
    [
        ("resize_and_crop", "bicubic to 16"),
        ("scale_width", "bicubic to a width of 16, the middle 16"),
        ("none", "none, the middle 16"),
    ],
)
def test_the_protocol_tells_how_pictures_come_to_size(shards, preprocess, told):
    data = DataConfig(image_size=16, preprocess=preprocess)
    assert Evaluator(shards, data, None).protocol()["resize"] == told


def test_a_mended_record_costs_the_demo_one_pair(shards, people, tmp_path):
    shutil.copytree(shards.folder, tmp_path / "shards")
    mended = replace(Shards.open(tmp_path / "shards"), mended=tmp_path / "mended")
    path = mended.paths("testB")[0]
    path.write_bytes(path.read_bytes()[:-9])  # the last record
    assert len(mend(mended, 1)) == 1
    a, b = (
        images.astype(np.float32) / 127.5 - 1.0 for images in (people["testA"], people["testB"])
    )
    evaluator = Evaluator(mended, DATA, None, paired=True)
    scores = evaluator.evaluate(Generators(lookup(a, b), lookup(b, a)))
    assert evaluator.protocol()["pairs"] == PEOPLE - 1
    assert scores["ab"]["mae"] == scores["ba"]["mae"] == 0.0
    assert evaluator.baselines()["untranslated"]["ab"]["mae"] > 1.0
