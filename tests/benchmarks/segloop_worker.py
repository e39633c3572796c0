"""Trains with the very objects of a training run, for `against_torch`."""

import sys

import tensorflow as tf

from tests.benchmarks import turns
from trainer import flags
from trainer.assembly import devices, training
from trainer.running import preemption


def main() -> None:
    """Serves steps of the run that the command line asks for."""
    channel = turns.open_channel()
    config = flags.read_config(sys.argv[1:]).config
    strategy = devices.prepare_devices(config)
    stop = preemption.StopRequest()
    setup = training.prepare_training(config, strategy, stop.variable)
    iterator = setup.make_iterator(0)

    def train(num_steps: int) -> None:
        result = setup.train_loop.run(iterator, tf.constant(num_steps))
        loss = setup.loss.scores(result.sums.numpy())["loss"]  # Waits for the device.
        print(f"loss {loss:.4f}", file=sys.stderr)

    description = {
        "framework": f"TensorFlow {tf.__version__}",
        "device": "GPU" if tf.config.list_logical_devices("GPU") else "CPU",
        "parameters": setup.state.model.count_params(),
        "trainable": sum(
            variable.value.shape.num_elements()
            for variable in setup.state.model.trainable_variables
        ),
    }
    turns.serve(train, description, orders=sys.stdin, channel=channel)


if __name__ == "__main__":
    main()
