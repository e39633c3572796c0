"""Moving averages follow the formula, and everything of the model."""

import numpy as np
import pytest

from tests import helpers


@pytest.mark.parametrize(
    ("replicas", "average_warmup", "decays"),
    # The limits of steps 0 to 3 are 1/10, 2/11 = 0.18, 3/12 = 0.25 and 4/13 = 0.31.
    [
        (1, True, [1 / 10, 2 / 11, 1 / 4, 0.26]),
        (2, True, [1 / 10, 2 / 11, 1 / 4, 0.26]),
        (2, False, [0.26] * 4),
    ],
)
def test_averages_follow_every_update_on_every_number_of_replicas(
    replicas, average_warmup, decays
):
    rig = helpers.Rig(
        helpers.make_store(),
        replicas=replicas,
        ema_decay=0.26,
        average_warmup=average_warmup,
    )
    expected = [variable.numpy() for variable in rig.model.variables]
    for decay in decays:
        rig.train(1)
        expected = [
            decay * average + (1 - decay) * variable.numpy()
            for average, variable in zip(expected, rig.model.variables, strict=True)
        ]
    for average, value in zip(rig.ema.averages, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=1e-5, atol=1e-7)


def test_the_model_has_the_averages_for_a_while_and_then_its_own_weights():
    rig = helpers.Rig(helpers.make_store(), ema_decay=0.75)
    rig.train(3)
    own = rig.model.get_weights()
    with rig.ema.applied():
        for value, average in zip(
            rig.model.get_weights(), rig.ema.averages, strict=True
        ):
            np.testing.assert_array_equal(value, average.numpy())
        assert np.abs(rig.model.get_weights()[0] - own[0]).max() > 0
    for value, before in zip(rig.model.get_weights(), own, strict=True):
        np.testing.assert_array_equal(value, before)
