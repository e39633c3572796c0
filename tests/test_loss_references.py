"""Each loss equals a slow NumPy version of what its paper says, and so its gradient."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.losses import boundary, registry

_IGNORED = 255
_WEIGHTS = (0.5, 2.0, 3.0, 7.0)


def _draw(shape=(3, 4, 5), num_classes=4, seed=0):
    """Draws logits and labels; no label has the last class, and one image none."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes - 1, shape).astype(np.uint8)
    labels[random.random(shape) < 0.3] = _IGNORED
    labels[1] = _IGNORED
    return 2 * random.normal(size=(*shape, num_classes)), labels


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _mean_over_pixels(cost, logits, labels, weights, factor=lambda index: 1.0):
    """Returns the weighted mean of cost(probabilities, label) over valid pixels."""
    probabilities = _softmax(logits)
    total = count = 0.0
    for index in np.ndindex(labels.shape):
        if labels[index] != _IGNORED:
            weight = weights[labels[index]] * factor(index)
            total += weight * cost(probabilities[index], labels[index])
            count += weight
    return total / count


def _slow_smooth(logits, labels, weights, label_smoothing):
    def cost(p, label):
        target = np.full(len(p), label_smoothing / len(p))
        target[label] += 1 - label_smoothing
        return -(target * np.log(p)).sum()

    return _mean_over_pixels(cost, logits, labels, weights)


def _slow_hardest(logits, labels, weights, loss_top_k):
    probabilities = _softmax(logits)
    total = count = 0.0
    for image, label_map in zip(probabilities, labels, strict=True):
        costs = [
            (-weights[label] * np.log(p[label]), weights[label])
            for p, label in zip(image.reshape(-1, 4), label_map.ravel(), strict=True)
            if label != _IGNORED
        ]
        chosen = sorted(costs)[::-1][: max(1, round(loss_top_k * len(costs)))]
        total += sum(cost for cost, _ in chosen)
        count += sum(weight for _, weight in chosen)
    return total / count


def _slow_focal(logits, labels, weights, focal_gamma=2.0):
    def cost(p, label):
        return -((1 - p[label]) ** focal_gamma) * np.log(p[label])

    return _mean_over_pixels(cost, logits, labels, weights)


def _slow_is_near(labels, index, width):
    image, row, column = index
    square = labels[
        image,
        max(row - width, 0) : row + width + 1,
        max(column - width, 0) : column + width + 1,
    ]
    return ((square != labels[index]) & (square != _IGNORED)).any()


def _slow_boundary(logits, labels, weights, boundary_weight=5.0, boundary_width=3):
    def factor(index):
        return boundary_weight if _slow_is_near(labels, index, boundary_width) else 1

    return _mean_over_pixels(
        lambda p, label: -np.log(p[label]), logits, labels, weights, factor
    )


def _mean_of_coefficients(coefficient, logits, labels, weights):
    probabilities, is_valid = _softmax(logits), labels != _IGNORED
    there = [c for c in range(logits.shape[-1]) if (labels == c).any()]
    total = 0.0
    for c in there:
        p, g = probabilities[is_valid][:, c], labels[is_valid] == c
        total += weights[c] * coefficient(p, g)
    return 1 - total / sum(weights[c] for c in there)


def _slow_dice(logits, labels, weights):
    def coefficient(p, g):
        return 2 * (p * g).sum() / (p.sum() + g.sum())

    return _mean_of_coefficients(coefficient, logits, labels, weights)


def _slow_jaccard(logits, labels, weights):
    def coefficient(p, g):
        return (p * g).sum() / (p + g - p * g).sum()

    return _mean_of_coefficients(coefficient, logits, labels, weights)


def _slow_tversky(logits, labels, weights, tversky_alpha=0.3, tversky_beta=0.7):
    def coefficient(p, g):
        wrong = tversky_alpha * (p * (1 - g)).sum() + tversky_beta * ((1 - p) * g).sum()
        return (p * g).sum() / ((p * g).sum() + wrong)

    return _mean_of_coefficients(coefficient, logits, labels, weights)


def _jaccard_loss(is_class, wrong):
    """Returns one less |right| / |class or wrongly taken for it|, a set at a time."""
    right = {k for k in is_class if k not in wrong}
    return 1 - len(right) / len(is_class | wrong)


def _slow_lovasz(logits, labels, weights):
    """Equation 8 of the paper, with the set function itself at each prefix."""
    probabilities, losses = _softmax(logits), []
    for image, label_map in zip(probabilities, labels, strict=True):
        valid = np.flatnonzero(label_map.ravel() != _IGNORED)
        total = size = 0.0
        for c in set(label_map.ravel()[valid].tolist()):
            g = {k for k in valid if label_map.ravel()[k] == c}
            p = image.reshape(-1, 4)[:, c]
            errors = {k: 1 - p[k] if k in g else p[k] for k in valid}
            order = sorted(valid, key=lambda k: -errors[k])
            before = 0.0
            for length, k in enumerate(order, 1):
                after = _jaccard_loss(g, set(order[:length]))
                total += weights[c] * errors[k] * (after - before)
                before = after
            size += weights[c]
        if size:
            losses.append(total / size)
    return np.mean(losses)


_CASES = {
    "ce": [
        (_slow_smooth, {"label_smoothing": 0.2}),
        (_slow_hardest, {"loss_top_k": 0.4}),
        (_slow_hardest, {"loss_top_k": 0.001}),
    ],
    "focal": [(_slow_focal, {}), (_slow_focal, {"focal_gamma": 0.5})],
    "boundary": [
        (_slow_boundary, {}),
        (_slow_boundary, {"boundary_weight": 9.0, "boundary_width": 1}),
    ],
    "dice": [(_slow_dice, {})],
    "jaccard": [(_slow_jaccard, {})],
    "tversky": [
        (_slow_tversky, {}),
        (_slow_tversky, {"tversky_alpha": 0.0, "tversky_beta": 2.0}),
    ],
    "lovasz": [(_slow_lovasz, {})],
}


def _evaluate(loss, logits, labels):
    """Returns the loss and its gradient to the logits, as a step takes them."""
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        sums = loss.sums(logits, tf.constant(labels))
    upstream = loss.derivative(sums) / loss.divisor(sums)
    gradient = tape.gradient(sums, logits, output_gradients=upstream)
    return float(loss.number(sums)), gradient.numpy()


def _numeric_gradient(compute, logits, step=1e-5):
    gradient = np.zeros_like(logits)
    for index in np.ndindex(logits.shape):
        ends = []
        for side in (step, -step):
            moved = logits.copy()
            moved[index] += side
            ends.append(compute(moved))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("weights", [None, _WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("name", "slow", "options"),
    [(name, *case) for name, cases in _CASES.items() for case in cases],
)
def test_value_and_gradient_equal_slow_numpy(name, slow, options, weights):
    logits, labels = _draw()

    def compute(logits):
        return slow(logits, labels, weights or np.ones(4), **options)

    loss = registry.make(name, 4, weights, options)
    value, gradient = _evaluate(loss, logits, labels)
    np.testing.assert_allclose(value, compute(logits), rtol=1e-12)
    expected = _numeric_gradient(compute, logits)
    assert np.abs(expected).max() > 0.003
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-9)


def test_every_loss_has_a_slow_version():
    assert _CASES.keys() == registry.TERMS.keys()


def test_half_of_the_hardest_pixels_of_each_image():
    # Two classes whose logits are (0, x): -log softmax at class 0 is log(1 + e^x).
    costs = np.array([[[1.0, 4.0], [2.0, 3.0]], [[9.0, 8.0], [7.0, 5.0]]])
    logits = np.stack([np.zeros_like(costs), np.log(np.expm1(costs))], axis=-1)
    labels = np.zeros(costs.shape, np.uint8)
    labels[1, 0, 0] = _IGNORED
    loss = registry.make("ce", 2, options={"loss_top_k": 0.5})
    value, gradient = _evaluate(loss, logits, labels)
    # Two of four: 4 + 3. Of three valid ones round(1.5) = 2: 8 + 7.
    np.testing.assert_allclose(value, (4 + 3 + 8 + 7) / 4, rtol=1e-12)
    counts = [[[False, True], [False, True]], [[False, True], [True, False]]]
    np.testing.assert_array_equal(gradient.any(axis=-1), counts)


def test_equally_hard_pixels_share_what_is_left_for_them():
    logits = np.zeros([1, 1, 4, 2])
    logits[0, 0, 0] = [0, 2]
    loss = registry.make("ce", 2, options={"loss_top_k": 0.5})
    value, gradient = _evaluate(loss, logits, np.zeros([1, 1, 4], np.uint8))
    # log(1 + e^2) once, and log 2 once: a third of each of the other three.
    np.testing.assert_allclose(value, (np.log1p(np.exp(2)) + np.log(2)) / 2)
    np.testing.assert_allclose(gradient[0, 0, 1:], [[-1 / 12, 1 / 12]] * 3)


def test_ignored_pixels_are_not_among_those_that_cost_nothing():
    logits = np.full([1, 1, 8, 2], [1e3, 0.0])
    logits[0, 0, 0] = [0, 2]
    labels = np.array([[[0, 0, 0, 0] + 4 * [_IGNORED]]], np.uint8)
    value, _ = _evaluate(
        registry.make("ce", 2, options={"loss_top_k": 0.5}), logits, labels
    )
    np.testing.assert_allclose(value, np.log1p(np.exp(2)) / 2)


def test_focal_loss_of_a_pixel_that_is_met_in_full_has_no_gradient():
    logits = np.array([[[[1e4, 0.0], [0.0, 1e4]]]], np.float32)
    labels = np.array([[[0, 1]]], np.uint8)
    for gamma in (0.0, 0.5, 2.0):
        loss = registry.make("focal", 2, options={"focal_gamma": gamma})
        value, gradient = _evaluate(loss, logits, labels)
        assert value == 0 and not gradient.any()


def test_focal_loss_without_gamma_is_cross_entropy():
    logits, labels = _draw()
    losses = [
        _evaluate(registry.make(*arguments), logits, labels)
        for arguments in (("ce", 4), ("focal", 4, None, {"focal_gamma": 0.0}))
    ]
    for a, b in zip(*losses, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("price", "name"), [(0.5, "dice"), (1.0, "jaccard")])
def test_tversky_has_dice_and_jaccard_as_special_cases(price, name):
    logits, labels = _draw()
    options = {"tversky_alpha": price, "tversky_beta": price}
    value, _ = _evaluate(registry.make("tversky", 4, None, options), logits, labels)
    expected, _ = _evaluate(registry.make(name, 4), logits, labels)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("option", "is_dearer"), [("tversky_alpha", "positive"), ("tversky_beta", "neg")]
)
def test_alpha_is_the_price_of_false_positives_and_beta_of_negatives(option, is_dearer):
    # Class 1 counts alone; it is predicted where it is not, or not where it is.
    labels = np.array([[[0, 0, 1, 1]]], np.uint8)
    wrong = [0, 1, 1, 1] if is_dearer == "positive" else [0, 0, 0, 1]
    logits = 50 * np.eye(2)[np.array([[wrong]])]
    values = []
    for price in (0.3, 2.0):
        options = {"tversky_alpha": 0.3, "tversky_beta": 0.3, option: price}
        loss = registry.make("tversky", 2, (0.0, 1.0), options)
        values.append(_evaluate(loss, logits, labels)[0])
    # Two are right and one is wrong, or one and one.
    right = 2 if is_dearer == "positive" else 1
    expected = [1 - right / (right + price) for price in (0.3, 2.0)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_lovasz_of_a_sure_prediction_is_one_less_the_iou():
    labels = np.array([[[0, 0, 0, 1, 1, _IGNORED]]], np.uint8)
    logits = 200 * np.eye(2)[np.array([[[0, 0, 1, 1, 1, 0]]])]
    value, _ = _evaluate(registry.make("lovasz", 2), logits, labels)
    # IoU of class 0 is 2 / 3, of class 1 2 / 3.
    np.testing.assert_allclose(value, 1 / 3, rtol=1e-12)


def test_lovasz_in_float32_bears_many_pixels():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (1, 128, 128)).astype(np.uint8)
    logits = random.normal(size=(1, 128, 128, 2)).astype(np.float32)
    loss = registry.make("lovasz", 2)
    (value, gradient), (expected, exact) = (
        _evaluate(loss, logits.astype(dtype), labels)
        for dtype in (np.float32, np.float64)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, exact, atol=1e-4 * np.abs(exact).max())


def test_a_band_along_boundaries_that_are_drawn():
    # A point is an ignored pixel, a star one that is near another class. Neither at the
    # end of the image nor at an ignored pixel is there a boundary.
    drawn = [
        ("000011.2", "   ***. "),
        ("000000..", "******.."),
        (".3.....1", ".*..... "),
    ]
    characters = np.array(
        [[list(row) for row in rows] for rows in zip(*drawn, strict=True)]
    )
    labels = np.where(characters[:1] == ".", str(_IGNORED), characters[:1])
    labels = labels.astype(np.uint8)  # [1, 3, 8]
    near = boundary.is_near_boundary(tf.constant(labels), 1).numpy()
    is_valid = labels != _IGNORED
    np.testing.assert_array_equal(near[is_valid], (characters[1:] == "*")[is_valid])


@pytest.mark.parametrize("distance", range(1, 12))
def test_the_band_is_as_wide_as_it_is_said_to_be(distance):
    labels = np.zeros([1, 3, 30], np.uint8)
    labels[0, :, 15:] = 1
    labels[0, :, 29] = _IGNORED
    near = boundary.is_near_boundary(tf.constant(labels), distance).numpy()
    expected = np.zeros([1, 3, 30], bool)
    expected[:, :, 15 - distance : 15 + distance] = True
    np.testing.assert_array_equal(near[:, :, :29], expected[:, :, :29])


def test_lovasz_and_hardest_pixels_train_alike_on_two_replicas():
    examples = helpers.make_store(num_examples=8, size=16, ignored=0.1)
    labels = examples.labels.copy()
    labels[::3, 5:] = _IGNORED
    examples = helpers.relabel(examples, np.s_[:], labels)
    text, options = "0.5*lovasz+ce", {"loss_top_k": 0.3}
    rigs = [
        helpers.Rig(
            examples,
            loss=registry.make(text, 3, (0.5, 1.0, 2.0), options),
            replicas=replicas,
        )
        for replicas in (1, 2)
    ]
    one, two = (rig.train(3) for rig in rigs)
    np.testing.assert_allclose(two, one, rtol=1e-5)
    for a, b in itertools.zip_longest(*(rig.weights() for rig in rigs)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
