"""No op of a step makes a GPU wait for the host, or is refused by one.

The first is told from TensorFlow's registry, the second from what its library says.
"""

import pytest
import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph, kernels

from data.augmentation import registry as changes
from models.fast import devices
from tests import shallow
from trainer import flags, tensorflow_private
from trainer.assembly import devices as run_devices
from trainer.assembly import training
from trainer.losses import registry as losses
from trainer.metrics import bins, groups, image_scores, merging
from trainer.metrics import registry as metrics
from trainer.running import preemption
from trainer.settings import variants
from trainer.steps import averaging

pytestmark = pytest.mark.skipif(
    all(
        kernel.device_type != "GPU"
        for kernel in kernels.get_all_registered_kernels().kernel
    ),
    reason="needs a TensorFlow that was built for GPUs",
)

_PIXELS = 32 * 32
"""Of the smallest image in these tests. TensorFlow has kernels for GPUs that compute
int32 on the host, as shapes of tensors are int32."""

_STRENGTHS = {"random_scale": "0.5,2.0", "random_gamma": "0.5"}
"""Of the changes that a share of 0.3 is no strength for."""


_NOT_WAITED_FOR = {"Timestamp"}
"""Ops of the host that tell for how long the input was waited for: only the host uses
what they give."""

_NOT_DETERMINISTIC = {"DenseBincount", "Timestamp"}
"""Refused ops that a step has only without --deterministic."""

_REFUSED = {
    "AdjustContrast",
    "AdjustContrastv2",
    "Bincount",
    "CropAndResizeGradBoxes",
    "CropAndResizeGradImage",
    "DenseBincount",
    "Dilation2DBackpropFilter",
    "Dilation2DBackpropInput",
    "FakeQuantWithMinMaxVarsGradient",
    "FakeQuantWithMinMaxVarsPerChannelGradient",
    "MaxPoolGradWithArgmax",
    "NonDeterministicInts",
    "ResizeNearestNeighborGrad",
    "SoftmaxCrossEntropyWithLogits",
    "SparseSoftmaxCrossEntropyWithLogits",
    "SparseTensorDenseMatMul",
    "Svd",
    "Timestamp",
}
"""Ops that TensorFlow 2.21 refuses on GPUs where ops must be deterministic: those which
libtensorflow_cc.so.2 names beside "determinis" in its messages."""


def _has_gpu_kernel(op: tf.Operation) -> bool:
    """Tells whether a GPU has the op with these types, or no device has it."""
    registered = kernels.get_registered_kernels_for_op(op.type).kernel
    return not registered or bool(_kernels_for_gpus(op))


def _kernels_for_gpus(op: tf.Operation) -> list:
    """Returns what the registry holds of kernels for the op with these types."""
    return [
        kernel
        for kernel in kernels.get_registered_kernels_for_op(op.type).kernel
        if kernel.device_type in ("GPU", "DEFAULT")
        and all(
            op.get_attr(rule.name).as_datatype_enum in rule.allowed_values.list.type
            for rule in kernel.constraint
            if rule.allowed_values.list.type
        )
    ]


def _is_held_by_the_host(op: tf.Operation) -> bool:
    """Tells whether the op's kernel for GPUs gives as much as an image to the host."""
    names = {arg.name for arg in op.op_def.output_arg}
    return any(
        names & set(kernel.host_memory_arg)
        and (output.shape.num_elements() or 0) >= _PIXELS
        for kernel in _kernels_for_gpus(op)
        for output in op.outputs
    )


def _ops(graph: tf.Graph) -> list[tf.Operation]:
    """Returns the ops of a graph, and of the functions in it."""
    library = graph.as_graph_def().library.function
    graphs = [graph, *map(function_def_to_graph.function_def_to_graph, library)]
    return [op for each in graphs for op in each.get_operations()]


def _ops_on_the_host(graph: tf.Graph) -> set[str]:
    """Returns the kinds of ops that a GPU has not, in the functions of a graph, too.

    And of those whose kernels for GPUs take pixels to the host all the same.
    """
    return {
        op.type
        for op in _ops(graph)
        if not _has_gpu_kernel(op) or _is_held_by_the_host(op)
    }


def test_the_registry_knows_what_gpus_cannot():
    with tf.Graph().as_default() as graph:
        numbers = tf.zeros([8], tf.int32)
        for dtype in (tf.int32, tf.int64):
            assert not _ops_on_the_host(graph)
            tf.raw_ops.DenseBincount(
                input=numbers,
                size=4,
                weights=tf.zeros([0], dtype),
                binary_output=False,
            )
        assert _ops_on_the_host(graph) == {"DenseBincount"}
        for size in (_PIXELS - 1, _PIXELS):
            assert "Mul" not in _ops_on_the_host(graph)
            numbers = tf.zeros([size], tf.uint8)
            _ = numbers * 3, tf.cast(numbers, tf.int32) * 3
    assert _ops_on_the_host(graph) == {"DenseBincount", "Mul"}


def test_training_and_evaluation_stay_on_the_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "is_on_cpu", lambda: False)
    shallow.shorten(monkeypatch)
    strengths = [
        f"--{name}" + ("" if entry.off is False else f"={_STRENGTHS.get(name, 0.3)}")
        for name, entry in changes.CHANGES.items()
    ]
    config = flags.read_config(
        [
            f"--model_dir={tmp_path}",
            "--dataset=synthetic",
            "--train_split=test",
            "--image_size=48",
            "--image_normalization=measured",
            "--crop_size=32",
            "--crop_rare_classes=0.5",
            "--encoder_alpha=0.35",
            "--encoder_weights=none",
            "--nofreeze_encoder",
            "--decoder_filters=8,8,8,8",
            "--decoder_dropout=0.1",
            "--batch_size=4",
            "--gradient_accumulation_steps=2",
            "--global_clipnorm=1",
            "--optimizer=adamw",
            "--encoder_lr_multiplier=0.1",
            "--ema_decay=0.9",
            f"--loss={'+'.join(losses.TERMS)}",
            "--loss_top_k=0.5",
            "--class_weights=balanced",
            f"--metrics={','.join(metrics.METRICS)}",
            "--eval_native_size",
            *strengths,
        ]
    ).config
    setup = training.prepare_training(
        config,
        run_devices.prepare_devices(config),
        preemption.StopRequest().variable,
    )
    with setup.strategy.scope():  # As `--mode=evaluate` has them.
        setup.evaluation.eval_loop.image_scores = image_scores.ImageScores(200, 3)
    for run, iterator in (
        (setup.train_loop.at(0).loop.run, setup.make_iterator(0)),
        (setup.evaluation.eval_loop._run, setup.evaluation.iterator),
    ):
        traced = run.get_concrete_function(iterator, tf.constant(1))
        assert _ops_on_the_host(traced.graph) <= _NOT_WAITED_FOR
        refused = {op.type for op in _ops(traced.graph)} & _REFUSED
        assert refused <= _NOT_DETERMINISTIC


@pytest.mark.parametrize("has_values", [False, True])
def test_counting_by_bin_is_not_refused_with_determinism(has_values, monkeypatch):
    monkeypatch.setattr(tensorflow_private, "is_deterministic", lambda: True)
    numbers = tf.TensorSpec([2, 32, 32], tf.int32)
    traced = tf.function(
        lambda places, values: bins.sum_by_bin(
            places, 9, where=places < 3, values=values if has_values else None
        )
    ).get_concrete_function(numbers, numbers)
    types = {op.type for op in _ops(traced.graph)}
    assert "UnsortedSegmentSum" in types and not types & _REFUSED


def test_scores_of_merged_classes_stay_on_the_gpu():
    merge = merging.Merging(groups.resolve(groups.parse(["d=a+b"]), ["a", "b", "c"]))
    traced = tf.function(merge).get_concrete_function(
        tf.TensorSpec([2, 4, 4], tf.uint8), tf.TensorSpec([2, 4, 4, 3])
    )
    assert not _ops_on_the_host(traced.graph)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.uint16])
def test_variants_of_images_stay_on_the_gpu(dtype):
    averaged = averaging.Averaged(
        lambda images, training: tf.cast(images, tf.float32),
        variants.parse(("flip", "0.5", "1.5")),
    )
    traced = tf.function(averaged).get_concrete_function(
        tf.TensorSpec([2, 4, 4, 3], dtype)
    )
    assert not _ops_on_the_host(traced.graph)
