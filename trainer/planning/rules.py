"""What to train and how: rules from facts of the data and measured costs to settings.

All numbers that somebody may want to change stand at the top, and each function is a
rule of its own. What a rule gives is a `Choice`: a value, and why.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from trainer.planning import costs, notes
from trainer.settings import joining
from trainer.settings import optimizer as optimizer_settings

_NEEDED_EPOCHS = ((200, 50), (1_000, 30), (5_000, 20), (math.inf, 15))
"""(examples up to which, epochs that training on them needs). Of 200 photos, 35 epochs
at 320x320 gave a mean IoU of 0.782, and 24 at 384x384, which take as long, 0.773."""
_MOST_EPOCHS = 6
"""Times the epochs that are needed; more time than that is given back."""

_BATCH_SIZE, _SMALL_BATCH_SIZE = 16, 8
_SMALL_SET = 160
"""Fewer examples than this have fewer than ten steps of 16 in an epoch."""
_MEMORY_SHARE = 0.8
_CACHE_SHARE = 0.25
"""Of the memory that is free: what a run, and what its examples may take."""
_FASTER = 0.9
"""A 16-bit format is taken if its step takes less than this of one in float32."""

_RARE = 0.1
"""Of an even share of the pixels; the loss makes up for classes that are rarer."""
_EVALUATION_SHARE = 0.1
_LEAST_EVALUATIONS, _MOST_EVALUATIONS = 2, 20
_WARMUP_SHARE, _LEAST_WARMUP, _MOST_WARMUP = 0.05, 10, 500
_EMA_SHARE = 0.25
"""Of the run that the moving averages of the weights span, at most."""
_EMA_DECAYS = (0.999, 0.99, 0.9)
_SCALES = (0.75, 2.0)
_CHANGED_FROM = 50
"""Epochs from which on random weights learn more from examples that are changed."""

RECIPE = {
    "decoder": "unet",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "lr_schedule": "cosine",
}
"""Of every plan, and of launch/flagfiles/recommended.flags."""
ENCODER_LR_MULTIPLIER = 0.3
_ENCODER = "mobilenet_v2"
"""The default: what is given beside no encoder is meant for this one."""
_NO_WEIGHTS = "no ImageNet weights are there (--encoder_weights=FILE, or Keras' cache)"
_RATES = {"pretrained": 2.0, "random": 6.0}
"""Times the default learning rate of adamw, with which they were measured."""
_SMALL_MODELS = {
    "CPU": {"encoder_alpha": 0.125, "decoder_filters": (64, 32, 16, 8)},
    "GPU": {"encoder_alpha": 0.5, "decoder_filters": (256, 128, 64, 32)},
}
"""What a plan says of an encoder that it has chosen, and of no other."""


def needed_epochs(num_train: int) -> int:
    """Returns how many epochs training needs at least; of fewer examples, more."""
    return next(epochs for most, epochs in _NEEDED_EPOCHS if num_train <= most)


def choose_model(
    facts: notes.Facts, given: Mapping[str, Any]
) -> dict[str, notes.Choice]:
    """Returns encoder and decoder, with which what is given keeps its meaning.

    From random weights, the original U-Net learns in a fraction of the steps that
    MobileNetV2 needs, and its maps of the images' own size give sharp contours: of the
    built-in pictures at 128x128, 600 steps of the narrow one gave a mean IoU of 0.92,
    and 800 of a narrow MobileNetV2, 0.84.
    """
    if facts.has_weights:
        reason = "small and fast, and its ImageNet weights are there"
        choices = {"encoder": notes.Choice(_ENCODER, reason)}
        if facts.weights_file:
            reason = "one file for all sizes: the weights of some are not there"
            choices["encoder_weights"] = notes.Choice(facts.weights_file, reason)
        return choices
    choices = {
        "encoder": notes.Choice(
            "plain",
            f"{_NO_WEIGHTS}: the original U-Net, narrow, which learns from scratch",
        ),
        "encoder_weights": notes.Choice("none", ""),
        "freeze_encoder": notes.Choice(False, ""),
    }
    values = {name: choice.value for name, choice in choices.items()}
    meaningless = joining.join([values, given]).meaningless
    if lost := [name for name in given if name in meaningless]:
        reason = f"it takes --{lost[0]}; {_NO_WEIGHTS}"
        choices["encoder"] = notes.Choice(_ENCODER, reason)
    elif not given.keys() & {"encoder", "decoder"}:  # Others have other widths.
        widths = _SMALL_MODELS["GPU" if facts.has_gpu else "CPU"]
        choices |= {name: notes.Choice(value, "") for name, value in widths.items()}
    return choices


def choose_freezing(is_frozen: bool) -> dict[str, notes.Choice]:
    """Returns what becomes of a pretrained encoder."""
    if is_frozen:
        return {
            "freeze_encoder": notes.Choice(
                True, "to train it, too, would leave too few epochs"
            )
        }
    return {
        "freeze_encoder": notes.Choice(False, "trained, too: there is the time for it"),
        "encoder_lr_multiplier": notes.Choice(
            ENCODER_LR_MULTIPLIER, "slowly, for it knows images already"
        ),
    }


def choose_batch_size(facts: notes.Facts) -> notes.Choice:
    """Returns the batch size, a multiple of the number of devices."""
    is_small = facts.num_train < _SMALL_SET
    size = _SMALL_BATCH_SIZE if is_small else _BATCH_SIZE
    reason = "many steps in little time"
    if is_small:
        reason = f"{facts.num_train} examples make few steps of more"
    size = -(-size // facts.num_replicas) * facts.num_replicas
    if facts.num_replicas > 1:
        reason += f", shared by {facts.num_replicas} devices"
    return notes.Choice(size, reason)


def choose_parts(
    memory_bytes: float,
    fixed_bytes: float,
    free_bytes: float,
    most: int,
    *,
    parts: int = 1,
) -> notes.Choice:
    """Returns into how many parts a batch is split.

    Args:
      memory_bytes: that a run was measured to take.
      fixed_bytes: that it would take with a batch of next to nothing.
      free_bytes: that there are.
      most: parts into which a batch can be split.
      parts: into which a batch was split in that measurement.
    """
    needed, count = memory_bytes, parts
    limit = _MEMORY_SHARE * free_bytes
    while needed > limit and 2 * count <= most and most % (2 * count) == 0:
        count *= 2
        needed = fixed_bytes + (memory_bytes - fixed_bytes) * parts / count
    measured, free = (f"{n / 2**30:.1f} GiB" for n in (memory_bytes, free_bytes))
    if count == parts and needed <= limit:
        reason = f"{describe_part(parts)} fits: {measured} of {free} that are free"
    else:
        reason = f"{describe_part(parts)} takes {measured}, and {free} are free"
    if needed > limit:
        reason += "; it may be too little, and the batch cannot be split further"
    return notes.Choice(count, reason)


def describe_part(parts: int) -> str:
    """Names a batch that is split into so many parts."""
    return "a whole batch" if parts == 1 else f"a batch in {parts} parts"


def choose_cache(facts: notes.Facts, shape: notes.Shape) -> notes.Choice:
    """Returns where decoded examples are kept."""
    size = (
        (facts.num_train + facts.num_eval)
        * math.prod(shape.image_size)
        * facts.pixel_bytes
    )
    fits = size <= _CACHE_SHARE * facts.memory_bytes
    text = f"all decoded examples take {size / 2**30:.2f} GiB"
    free = f"{facts.memory_bytes / 2**30:.1f} GiB of memory are free"
    return notes.Choice("memory" if fits else "disk", f"{text}, and {free}")


def choose_precision(float32_secs: float, bfloat16_secs: float) -> notes.Choice:
    """Returns the number format of a CPU, by the time of a step in each."""
    speed = float32_secs / bfloat16_secs
    reason = f"measured: a step in bfloat16 is {speed:.2f}x as fast as in float32"
    is_faster = bfloat16_secs < _FASTER * float32_secs
    return notes.Choice("bfloat16" if is_faster else "float32", reason)


def choose_class_weights(facts: notes.Facts) -> notes.Choice:
    """Returns weights of the classes, if some are rare."""
    present = [n for n in facts.class_pixels if n]
    even = sum(present) / max(len(facts.class_pixels), 1)
    rarest = min(present, default=0)
    name = facts.class_names[facts.class_pixels.index(rarest)] if present else ""
    share = rarest / max(sum(present), 1)
    if rarest >= _RARE * even:
        return notes.Choice(
            (), f"no class is rare: {name} has {share:.1%} of the pixels"
        )
    return notes.Choice(("inverse_sqrt",), f"{name} has {share:.2%} of the pixels")


def choose_changes(facts: notes.Facts, epochs: float) -> dict[str, notes.Choice]:
    """Returns how much training examples are changed.

    In two minutes on the built-in pictures, random weights came to a mean IoU of 0.85
    with changes of size and colour, and to 0.92 without. Strong changes are in no plan:
    of 200 photos, pretrained weights learned less from them than from light ones (0.768
    against 0.773 in 24 epochs at 384x384, 0.774 against 0.782 in 35 at 320x320, 0.775
    against 0.779 in 54 at 256x256).
    """
    if not facts.has_weights and epochs < _CHANGED_FROM:
        reason = (
            f"random weights learn in {epochs:.0f} epochs from examples as they are"
        )
        return {"augment": notes.Choice("flip", reason)}
    augment = notes.Choice("light", f"each example is seen {epochs:.0f} times")
    if facts.num_channels != 3:
        augment = notes.Choice("flip", "changes of colour are for RGB")
    return {"augment": augment, "random_scale": notes.Choice(_SCALES, "")}


def choose_loss(facts: notes.Facts) -> notes.Choice:
    """Returns the loss.

    Lovasz sorts all pixels, which takes little beside a step of a pretrained encoder,
    and half as long as one of a narrow network.
    """
    if facts.has_weights:
        return notes.Choice("ce+lovasz", "")
    return notes.Choice("ce+dice", "")


def choose_learning_rate(
    batch_size: int, has_weights: bool, optimizer: str = RECIPE["optimizer"]
) -> notes.Choice:
    """Returns the peak learning rate.

    Args:
      batch_size: rows of a step, over all replicas.
      has_weights: whether the encoder begins with pretrained weights.
      optimizer: that of the run; another one than the recipe's gets its own default.
    """
    default = optimizer_settings.default_learning_rate(optimizer, batch_size)
    if optimizer != RECIPE["optimizer"]:
        reason = f"the default of {optimizer} for batches of {batch_size}"
        return notes.Choice(default, reason)
    kind = "pretrained" if has_weights else "random"
    rate = float(f"{_RATES[kind] * default:.3g}")
    return notes.Choice(rate, f"for batches of {batch_size} and {kind} initial weights")


def choose_rhythm(
    measured: costs.Costs,
    rhythm: costs.Rhythm,
    secs: float,
    *,
    most: int,
    between: int | None = None,
) -> tuple[int, int]:
    """Returns the steps that fit into a time, and the epochs between evaluations.

    Args:
      measured: what the parts of the run take.
      rhythm: how often they come, but for the evaluations.
      secs: the time.
      most: the greatest number of steps.
      between: the epochs between evaluations, if they are given.
    """
    if between is None:
        between = _choose_between(measured, rhythm, secs, most)
    rhythm = dataclasses.replace(rhythm, epochs_between_evals=between)
    steps = costs.most_steps(measured, rhythm, (1 - costs.RESERVE) * secs, limit=most)
    return steps, between


def _choose_between(
    measured: costs.Costs, rhythm: costs.Rhythm, secs: float, most: int
) -> int:
    """Returns the epochs between evaluations that take their share of the time."""
    each = measured.evaluation + measured.save
    share = _EVALUATION_SHARE * secs / max(each, 1e-6)
    wanted = min(max(int(share), _LEAST_EVALUATIONS), _MOST_EVALUATIONS)
    per_epoch = rhythm.num_examples / rhythm.batch_size
    step = measured.step
    if rhythm.checkpoint_interval:
        step += measured.save / rhythm.checkpoint_interval
    without = dataclasses.replace(measured, step=step, evaluation=0.0, save=0.0)
    left = (1 - costs.RESERVE) * secs - wanted * each
    num_steps = costs.most_steps(without, rhythm, left, limit=most)
    return max(1, math.ceil(num_steps / per_epoch / wanted))


def most_steps(facts: notes.Facts, batch_size: int) -> int:
    """Returns the length beyond which more time is of no use."""
    epochs = _MOST_EPOCHS * needed_epochs(facts.num_train)
    return math.ceil(epochs * facts.num_train / batch_size)


def choose_warmup(num_steps: int) -> notes.Choice:
    """Returns the steps of the warm-up, fewer than half of all."""
    steps = min(max(round(_WARMUP_SHARE * num_steps), _LEAST_WARMUP), _MOST_WARMUP)
    steps = min(steps, (num_steps - 1) // 2)
    return notes.Choice(steps, f"{steps / num_steps:.0%} of the run")


def choose_ema(num_steps: int) -> notes.Choice:
    """Returns the decay of the moving averages of the weights."""
    for decay in _EMA_DECAYS:
        span = round(1 / (1 - decay))
        if span <= _EMA_SHARE * num_steps:
            return notes.Choice(decay, f"averages of the weights over {span} steps")
    return notes.Choice(0.0, "too few steps for averages of the weights")
