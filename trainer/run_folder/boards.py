"""What TensorBoard reads besides points: the layout, and the table of runs."""

from collections.abc import Mapping
from typing import Any

from trainer.settings import config as config_lib
from trainer.settings import fields

_LAYOUT = {
    "At a glance": {
        "Loss": ["loss"],
        "Mean IoU": ["mean_iou"],
        "Pixel accuracy": ["pixel_accuracy"],
        "Learning rate": ["learning_rate"],
        "Gradient norm": ["gradient_norm"],
        "Images a second": ["images_per_sec"],
        "Share of time waiting for input": ["input_share"],
        "Memory, MiB": ["host_memory_mib", "device_memory_peak_mib"],
    },
}
"""Titles of groups and charts, and the tags in each; both splits are in a chart."""

_IMPORTANT = (
    "dataset",
    "image_size",
    "encoder",
    "freeze_encoder",
    "decoder",
    "loss",
    "augment",
    "optimizer",
    "learning_rate",
    "lr_schedule",
    "batch_size",
    "train_epochs",
    "train_steps",
    "mixed_precision",
    "seed",
)
"""Settings that the table of runs always shows."""

_NO_MATTER = (
    "steps_per_loop",
    "epochs_between_evals",
    "log_steps",
    "checkpoint_interval",
    "max_to_keep",
    "summary_images",
    "summary_histograms",
    "keep_golden",
)
"""Settings that it does not show, given or not: they change no weight."""

_STATUSES = {"finished": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}


def make_layout() -> bytes:
    """Returns the summary that lays out the tab of custom scalars, serialized."""
    from tensorboard.plugins.custom_scalar import layout_pb2, summary

    categories = [
        layout_pb2.Category(
            title=title,
            chart=[
                layout_pb2.Chart(
                    title=name,
                    multiline=layout_pb2.MultilineChartContent(
                        tag=[f"^{tag}$" for tag in tags]
                    ),
                )
                for name, tags in charts.items()
            ],
        )
        for title, charts in _LAYOUT.items()
    ]
    return summary.pb(layout_pb2.Layout(category=categories)).SerializeToString()


def select_settings(config: config_lib.Config) -> dict[str, bool | float | str]:
    """Returns what the table of runs shows: what was given, and what matters always.

    Args:
      config: all settings; of those that say how and where, none is shown.
    """
    values, settings = config.as_dict(), config_lib.fields_by_name()
    hidden = {name for name, field in settings.items() if field.metadata["is_local"]}
    shown = {*config.given(), *_IMPORTANT} - hidden.union(_NO_MATTER)
    return {
        name: _to_scalar(values[name])
        for name in config.saved()
        if name in shown and values[name] is not None
    }


def make_session_start(settings: Mapping[str, Any], name: str) -> bytes:
    """Returns the summary that makes a line of the table of runs, serialized.

    Args:
      settings: booleans, numbers and text, by name.
      name: of the run.
    """
    from tensorboard.plugins.hparams import summary_v2

    # By its name, two runs of the same settings are two lines.
    return summary_v2.hparams_pb(dict(settings), trial_id=name).SerializeToString()


def make_session_end(status: str) -> bytes:
    """Returns the summary that ends a run, serialized.

    Args:
      status: `finished` or `failed`.
    """
    from tensorboard.plugins.hparams import api_pb2, summary

    status = api_pb2.Status.Value(_STATUSES[status])
    return summary.session_end_pb(status).SerializeToString()


def _to_scalar(value: Any) -> bool | float | str:
    if isinstance(value, bool | int | float):
        return value
    return fields.format_value(value)
