"""Measures what the guards of a step cost: the stop flag and the finite check.

    python -m tests.faults.cost

Runs the training loop and a loop without the two in turn, on one batch of the
tutorial's model, and prints the ratio of their times.
"""

import statistics
import time

import tensorflow as tf

from tests import helpers
from trainer import steps

_ROUNDS = 12
_STEPS = 4


class _BareLoop(steps.TrainLoop):
    """The training loop with nothing between the gradients and the update."""

    @tf.function
    def run(self, iterator, num_steps):
        total = tf.zeros([], tf.float64)
        count = tf.zeros([], tf.float64)
        for _ in tf.range(num_steps):
            step = self._strategy.run(self._replica_step, (next(iterator),))
            step = self._strategy.experimental_local_results(step)[0]
            total += step["total"]
            count += step["count"]
            self._global_step.assign_add(1)
        return steps.TrainResult(total, count, 0.0, False, True)

    def _replica_step(self, batch):
        gradients, step = self._replica_gradients(batch)
        self._replica_update(gradients)
        return step


def _build(replicas):
    return helpers.build_unet(
        size=128,
        replicas=replicas,
        encoder_alpha=1.0,
        freeze_encoder=True,
        decoder_filters=(512, 256, 128, 64),
    )


def _time(rig, iterator) -> float:
    started = time.perf_counter()
    float(rig.loop.run(iterator, tf.constant(_STEPS)).total)
    return (time.perf_counter() - started) / _STEPS


def main() -> None:
    """Prints the times and their ratio."""
    examples = helpers.make_store(num_examples=16, size=128)
    contenders = []
    for loop in (steps.TrainLoop, _BareLoop):
        original, steps.TrainLoop = steps.TrainLoop, loop
        rig = helpers.Rig(examples, build=_build, optimizer="adam", batch_size=16)
        steps.TrainLoop = original
        contenders.append((rig, rig.batches()))
    for contender in contenders:
        _time(*contender)
    rounds = [[_time(*contender) for contender in contenders] for _ in range(_ROUNDS)]
    guarded, bare = zip(*rounds, strict=True)
    ratio = statistics.median(a / b for a, b in rounds)
    print(
        f"guarded {1000 * statistics.median(guarded):.1f} ms/step, bare "
        f"{1000 * statistics.median(bare):.1f} ms/step; best {1000 * min(guarded):.1f} "
        f"and {1000 * min(bare):.1f}; median ratio {ratio:.3f}, ratio of the best "
        f"{min(guarded) / min(bare):.3f}"
    )


if __name__ == "__main__":
    main()
