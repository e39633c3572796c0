"""Tests of the random changes to training examples."""

import numpy as np
import pytest
import tensorflow as tf

from data import augment

ROWS = 8


def make_batch(num_rows=ROWS):
    """Makes images [rows, 3, 5, 3] and labels [rows, 3, 5] that rise to the right."""
    images = np.arange(num_rows * 45, dtype=np.int64).reshape(num_rows, 3, 5, 3) % 256
    labels = np.arange(num_rows * 15, dtype=np.int64).reshape(num_rows, 3, 5) % 256
    return images.astype(np.uint8), labels.astype(np.uint8)


def count(step, rows=slice(None), global_batch_size=ROWS):
    """Returns the counters of some rows of a step."""
    return tf.range(global_batch_size, dtype=tf.int64)[rows] + step * global_batch_size


def flip(images, labels, counters, *, seed=0, global_batch_size=ROWS):
    flipper = augment.RandomFlip(global_batch_size=global_batch_size, seed=seed)
    images, labels = tf.function(flipper)(images, labels, counters)
    return images.numpy(), labels.numpy()


def find_flipped(step, *, seed=0, num_rows=ROWS):
    """Tells of each row of a step whether its label is mirrored."""
    images, labels = make_batch(num_rows)
    _, flipped = flip(
        images,
        labels,
        count(step, global_batch_size=num_rows),
        seed=seed,
        global_batch_size=num_rows,
    )
    return (flipped != labels).any((1, 2))


def test_chosen_examples_are_mirrored_and_the_others_kept():
    images, labels = make_batch()
    chosen = find_flipped(step=3)

    new_images, new_labels = flip(images, labels, count(step=3))

    expected = np.where(chosen[:, None, None, None], np.flip(images, 2), images)
    np.testing.assert_array_equal(new_images, expected)
    expected = np.where(chosen[:, None, None], np.flip(labels, 2), labels)
    np.testing.assert_array_equal(new_labels, expected)
    assert 0 < chosen.sum() < ROWS


def test_the_chosen_are_those_with_a_draw_below_a_half():
    draws = augment.random_uniform(count(5), 1, global_batch_size=ROWS, seed=4)

    np.testing.assert_array_equal(
        find_flipped(step=5, seed=4), draws.numpy()[:, 0] < 0.5
    )


def test_types_stay_as_they_are():
    images, labels = make_batch()

    new_images, new_labels = flip(images.astype(np.float32), labels, count(0))

    assert new_images.dtype == np.float32
    assert new_labels.dtype == np.uint8


@pytest.mark.parametrize("rows", [slice(0, 4), slice(4, 8), slice(6, 7)])
def test_a_row_is_changed_alike_whichever_replica_has_it(rows):
    images, labels = make_batch()
    all_images, all_labels = flip(images, labels, count(2))

    new_images, new_labels = flip(images[rows], labels[rows], count(2, rows))

    np.testing.assert_array_equal(new_images, all_images[rows])
    np.testing.assert_array_equal(new_labels, all_labels[rows])


def test_steps_differ():
    choices = {find_flipped(step, num_rows=64).tobytes() for step in range(10)}

    assert len(choices) == 10


def test_seeds_differ():
    choices = {find_flipped(0, seed=seed, num_rows=64).tobytes() for seed in range(10)}

    assert len(choices) == 10


def test_same_step_and_seed_choose_the_same():
    np.testing.assert_array_equal(find_flipped(7, seed=1), find_flipped(7, seed=1))


def test_about_half_are_mirrored():
    """Of 1000 fair draws, 450 to 550 is three standard deviations of 16."""
    assert 450 < find_flipped(0, num_rows=1000).sum() < 550


def test_each_example_has_draws_of_its_own():
    draws = augment.random_uniform(count(1), 2, global_batch_size=ROWS, seed=0).numpy()

    assert draws.shape == (ROWS, 2)
    assert len(np.unique(draws)) == 2 * ROWS


def test_keep_changes_nothing():
    images, labels = make_batch()

    new_images, new_labels = augment.keep(images, labels, count(0))

    np.testing.assert_array_equal(new_images, images)
    np.testing.assert_array_equal(new_labels, labels)
