"""Single examples of a source: decoded, named, and what is wrong with them."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from data import pipeline, schema
from data.preparing import bad_examples as bad_examples_lib
from data.preparing import preprocessing
from data.sources import listing

READ_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.DataLossError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)
"""What TensorFlow raises for a file that is damaged, gone or not ours to read, is a
folder by now, or lies on a disk (unknown error) or server (aborted, unavailable, past
its deadline) that fails. Workers that go away show as some of these, too, so only
reading again tells whether an example is to blame."""


@contextlib.contextmanager
def naming_bad(read_again: Callable[[], None]) -> Iterator[None]:
    """Names the example that is to blame for an error of the input, if one is.

    Args:
      read_again: reads the examples that were due; raises a `schema.DataError` for one
        that cannot be used.
    """
    try:
        yield
    except READ_ERRORS:
        read_again()
        raise


def name_as_text(name: bytes) -> str:
    """Returns a name, which need not be text, as `listing.printable` shows it."""
    return listing.printable(os.fsdecode(name))


def name_files(example: Mapping[str, bytes]) -> tuple[str, ...]:
    """Returns the names of the files of an example, those that it has."""
    return tuple(
        name_as_text(example[key]) for key in ("name", "label_name") if key in example
    )


def decode_examples(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    examples: tf.data.Dataset,
    ids: Iterable[int],
    bad_examples: bad_examples_lib.BadExamples,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields preprocessed examples as NumPy values, in their order.

    Args:
      source: where they come from.
      preprocessor: how they become arrays.
      examples: as the source gives them.
      ids: of these examples.
      bad_examples: what becomes of those that cannot be used.

    Raises:
      schema.DataError: for an example that cannot be used or read.
    """
    # There is nothing to convert; to find that out takes AutoGraph half a second.
    preprocess = tf.autograph.experimental.do_not_convert(
        functools.partial(preprocessor, catches_errors=bad_examples.replaces)
    )
    examples = examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE)
    examples = pipeline.end_at_once(examples.prefetch(tf.data.AUTOTUNE))
    iterator = examples.as_numpy_iterator()
    for index in ids:
        try:
            example = next(iterator)
        except tf.errors.OpError as error:
            # The map keeps the order, so this example is the one that failed.
            raise explain_bad(source, preprocessor, index) from error
        if example["problem"]:
            bad_examples.handle(index, explain_bad(source, preprocessor, index))
        yield example


def read_name(source: schema.Source, index: int) -> str:
    """Returns the name of an example."""
    return name_as_text(_read_raw(source, index)["name"])


def explain_read_error(error: tf.errors.OpError) -> str:
    """Returns what the system says of a file, which names it, without names of ops."""
    message = error.message.splitlines()[0].rpartition("Iterator::")[2]
    message = message.partition(": ")[2] or message
    message = message.partition("}} ")[2] or message
    return f"it cannot be read ({message.partition(' [Op:')[0]})"


def _read_raw(source: schema.Source, index: int) -> dict[str, np.ndarray]:
    example = pipeline.end_at_once(source.examples(index, index + 1))
    return next(example.as_numpy_iterator())


def explain_bad(
    source: schema.Source, preprocessor: preprocessing.Preprocessor, index: int
) -> schema.DataError:
    """Reads an example that cannot be used again, for the error that says why."""
    place = f"{source.name}, example {index}"
    try:
        example = _read_raw(source, index)
    except tf.errors.OpError as error:
        return schema.DataError(f"{place}: {explain_read_error(error)}.")
    reason = preprocessor.explain(example) or schema.DataError(
        "it could not be decoded, but now it can"
    )
    message = f"{place} ({', '.join(name_files(example))}): {reason}."
    return schema.DataError(message, kind=reason.kind)
