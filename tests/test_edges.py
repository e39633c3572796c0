"""Masks and images are put upon each other by their edges."""

import numpy as np

from data.doctor import edges


def make_pair(seed, contrast):
    random = np.random.default_rng(seed)
    label = np.zeros((48, 48), np.uint8)
    row, column = random.integers(2, 20, 2)
    label[row : row + 9, column : column + 25] = 1
    noise = random.normal(100, 20, (48, 48, 3)) + contrast * label[..., None]
    return noise.clip(0, 255).astype(np.uint8), label


def compare(contrast, number=20):
    gains = []
    for seed in range(number):
        image, label = make_pair(seed, contrast)
        gains.append(edges.compare(image, np.rot90(image), label))
    return gains


def test_the_way_whose_edges_agree_is_found_and_its_opposite():
    gains = compare(60)

    assert edges.decide(gains) == 1
    assert edges.decide([-gain for gain in gains]) == -1


def test_nothing_is_decided_where_images_have_no_edges_of_their_own():
    assert edges.decide(compare(0)) == 0


def test_nothing_is_decided_by_few_pairs():
    assert edges.decide(compare(60, 4)) == 0


def test_gain_is_that_of_the_gradient_on_borders():
    """The border of the mask is column 1; the gradient there is 9, or 0."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2:] = 9
    label = np.zeros((4, 4), int)
    label[:, 2:] = 1

    assert edges.compare(image, np.zeros_like(image), label) == np.log(10)
    assert edges.compare(image, image, np.zeros_like(label)) == 0
