"""Times cached input: segloop's batches, and those of the tutorial's pipeline, in turn.

    python -m tests.benchmarks.cached_input [--dataset=tfds:NAME --data_dir=FOLDER]

Both have decoded their examples before and shuffle them: segloop keeps uint8 and
gathers batches by number, the tutorial's `tf.data` caches floats and draws from a
buffer. Neither augments. What counts are batches on the host, ready for a device.
"""

import argparse
import functools
import sys

import tensorflow as tf

from data import pipeline
from data.preparing import preprocessing
from data.sources import registry
from data.stores import store
from tests.benchmarks import fit_tutorial, report
from trainer.benchmarking import measuring

_SEGLOOP, _TUTORIAL = "segloop", "tutorial"


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=2.0, help="of a turn, about")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--dataset", default="synthetic", help="or tfds:NAME")
    parser.add_argument("--data_dir", default="", help="of TFDS")
    parser.add_argument("--json", metavar="FILE", help="where to write the results")
    arguments = parser.parse_args()
    measure = functools.partial(_measure, arguments)
    return report.show(measure, _format, arguments.json)


def _measure(arguments: argparse.Namespace) -> dict:
    """Times both; returns the settings and the figures."""
    size = arguments.image_size
    request = registry.SplitRequest(
        split="train",
        is_training=True,
        image_size=(size, size),
        data_dir=arguments.data_dir,
    )
    source = registry.open_source(arguments.dataset, request)
    preprocessor = preprocessing.Preprocessor(
        (size, size), source.info.num_classes, source.info.label_offset
    )
    examples = store.open_store(source, preprocessor)
    batches = pipeline.make_train_dataset(
        examples, global_batch_size=arguments.batch_size, seed=0
    )
    if arguments.dataset == "synthetic":
        pairs = fit_tutorial.load_synthetic(size)
    else:
        name = arguments.dataset.partition(":")[2]
        pairs = fit_tutorial.load_pets(name, arguments.data_dir)
    tutorial = fit_tutorial.make_batches(
        pairs, size=size, batch_size=arguments.batch_size
    )
    machine = report.describe_machine()
    timings = measuring.time_in_turn(
        {_SEGLOOP: _make_taker(batches), _TUTORIAL: _make_taker(tutorial)},
        rounds=arguments.rounds,
        secs=arguments.secs,
        agree=float,  # This process is alone.
    )
    return {
        "settings": vars(arguments),
        **machine,
        "bytes_per_example": {
            _SEGLOOP: (examples.images.nbytes + examples.labels.nbytes)
            // len(examples),
            _TUTORIAL: _bytes_per_row(tutorial),
        },
        "secs_per_batch": {name: timing._asdict() for name, timing in timings.items()},
    }


def _make_taker(batches: tf.data.Dataset):
    """Returns a function that takes so many batches and does nothing with them."""
    iterator = iter(batches)

    @tf.function
    def take(num_batches):
        total = tf.constant(0, tf.int64)
        for _ in tf.range(num_batches):
            batch = tf.nest.flatten(next(iterator))
            total += tf.add_n([tf.size(tensor, tf.int64) for tensor in batch])
        return total

    return lambda count: take(tf.constant(count)).numpy()


def _bytes_per_row(batches: tf.data.Dataset) -> int:
    specs = tf.nest.flatten(batches.element_spec)
    return sum(spec.shape[1:].num_elements() * spec.dtype.size for spec in specs)


def _format(results: dict) -> str:
    """Returns the results as they are shown."""
    batch_size = results["settings"]["batch_size"]
    rows = [
        [
            name,
            f"{1000 * secs['best']:.3f}",
            f"{1000 * secs['median']:.3f}",
            f"{batch_size / secs['median']:.0f}",
            f"{results['bytes_per_example'][name]:,}",
        ]
        for name, secs in results["secs_per_batch"].items()
    ]
    own, other = (results["secs_per_batch"][name] for name in (_SEGLOOP, _TUTORIAL))
    kept = results["bytes_per_example"]
    return "\n".join(
        [
            f"Cached batches of {batch_size}, {results['settings']['dataset']}.",
            report.format_machine(results),
            "",
            report.format_table(
                ["", "best ms", "median ms", "images/s", "bytes an example"], rows
            ),
            "",
            f"segloop is {other['best'] / own['best']:.2f} times as fast by best, "
            f"{other['median'] / own['median']:.2f} by median, with "
            f"{kept[_SEGLOOP] / kept[_TUTORIAL]:.2f} of the memory",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
