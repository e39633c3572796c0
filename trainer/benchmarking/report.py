"""What the figures of `--mode=benchmark` say, for people."""

_DEAR_SHARE = 0.1
"""Of the step; what is in `--augment=strong` takes less."""


def find_limiter(
    *,
    input_secs: float,
    step_secs: float,
    share_of_peak: float,
    num_ops: int,
    launch_secs: float,
    has_half_precision: bool = False,
    is_compiled: bool = False,
    augmentation_share: float | None = None,
) -> str:
    """Says in a sentence what a run waits for and what helps, and what changes cost.

    Args:
      input_secs: for a batch, without training on it.
      step_secs: for a training step on a batch that is there.
      share_of_peak: FLOPs per second of the step, over those of the calibration.
      num_ops: ops that the step executes.
      launch_secs: what it takes to start an op that computes nothing much.
      has_half_precision: whether activations have 16 bits already.
      is_compiled: whether XLA compiles the step already.
      augmentation_share: of the step; None: it has no random changes.
    """
    if input_secs > 0.9 * step_secs:
        limit = (
            "Limited by the input: a batch takes longer than the step that trains on "
            "it; keep the examples decoded (--cache=memory or disk)"
        )
    elif num_ops * launch_secs > 0.5 * step_secs:
        remedies = ["a larger --batch_size", "more --steps_per_loop"]
        remedies += [] if is_compiled else ["--enable_xla"]
        limit = (
            f"Limited by launching {num_ops} ops a step: try {' or '.join(remedies)}"
        )
    elif share_of_peak < 0.35:
        remedies = (
            []
            if has_half_precision
            else ["half the bytes (--mixed_precision=bfloat16 or float16)"]
        )
        remedies += [] if is_compiled else ["fused ops (--enable_xla on a GPU)"]
        remedies.append("a larger --batch_size")
        limit = (
            "Limited by memory traffic or small ops: the arithmetic runs at "
            f"{share_of_peak:.0%} of its peak; try {' or '.join(remedies)}"
        )
    else:
        limit = (
            f"Limited by arithmetic, at {share_of_peak:.0%} of this device's peak: "
            "only another number format, a smaller model or more devices are faster"
        )
    if augmentation_share is None:
        return f"{limit}."
    remedy = ""
    if augmentation_share > _DEAR_SHARE:
        remedy = ", which a weaker --augment or fewer changes beside it save"
    share = max(0.0, augmentation_share)
    return f"{limit}; random changes take {share:.0%} of the step{remedy}."


def format_report(figures: dict) -> str:
    """Lays out the figures of `benchmark.json` for people."""
    timings = figures["timings"]
    width = max(map(len, timings))
    lines = [
        f"{figures['device']}, {figures['precision']}, batches of "
        f"{figures['batch_size']}",
        "",
        f"{'':{width}}   best ms  median ms  images/s",
    ]
    for name, timing in timings.items():
        best, median = 1000 * timing["best_secs"], 1000 * timing["median_secs"]
        speed = timing["images_per_sec"]
        lines.append(f"{name:{width}}  {best:8.2f}  {median:9.2f}  {speed:8.0f}")
    lines.append("")
    for ours, prefix in (("end to end", "model.fit"), ("evaluation", "model.evaluate")):
        for name in timings:
            if name.startswith(prefix):
                ratios = [
                    timings[name][key] / timings[ours][key]
                    for key in ("best_secs", "median_secs")
                ]
                lines.append(
                    f"{ours} is {ratios[0]:.2f}x as fast as {name} by the best round, "
                    f"{ratios[1]:.2f}x by the median"
                )
    shares = figures["augmentation"]
    if shares["best_share"] is not None:
        lines.append(
            f"random changes take {shares['best_share']:.1%} of a step by the best "
            f"round, {shares['median_share']:.1%} by the median"
        )
    lines += [
        f"start to first finished step: {figures['start_to_first_step_secs']:.1f} s",
        f"a step: {figures['step_gflop']:.1f} GFLOP in {figures['step_ops']} ops (each "
        f"takes {1e6 * figures['launch_secs']:.1f} us to start), at "
        f"{figures['share_of_peak']:.0%} of the {figures['peak_gflops']:.0f} GFLOP/s "
        "of the calibration",
        f"peak memory: {figures['peak_memory_bytes'] / 2**20:.0f} MiB",
        figures["limiter"],
    ]
    return "\n".join(lines)
