"""Out of memory, said in one sentence."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

from trainer import errors
from trainer.settings import config as config_lib
from trainer.settings import fields

_SIGNS = (
    "oom when allocating",
    "out of memory",
    "failed to allocate memory",
    "failed to allocate request",
    "cuda_error_out_of_memory",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    # Of an allocation that fails inside a copy to a GPU, TensorFlow says no more.
    "dst tensor is not initialized",
)
"""What TensorFlow, XLA and CUDA say of an allocation that failed. A full disk is a
`ResourceExhaustedError`, too, and says none of it."""

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_CONTAINERS = (
    ("", "memory.max", "memory.current", ""),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Where Linux says what a container may use, and does use: the second version of
control groups, and the first. Names in memory.stat begin with the last entry."""


def free_bytes() -> int:
    """Returns how much memory the host, or this container, has left for more."""
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):  # With what can be taken from caches.
        text = pathlib.Path("/proc/meminfo").read_text("ascii")
        free = [int(n) * 1024 for n in re.findall(r"^MemAvailable: +(\d+)", text, re.M)]
    free += _free_in_container()
    return max(min(free), 0)


def _free_in_container() -> list[int]:
    """Returns what each bound of this container leaves."""
    free = []
    for folder, limit, used, prefix in _CONTAINERS:
        place = _CGROUP / folder
        with contextlib.suppress(OSError, ValueError):  # "max" is no bound.
            limit_bytes, used_bytes = (
                int((place / name).read_text("ascii")) for name in (limit, used)
            )
            stat = (place / "memory.stat").read_text("ascii")
            # Of what counts as used, the kernel takes these back before it kills. Who
            # has just read a whole data set has filled them up to the limit.
            found = re.findall(rf"^{prefix}(?:in)?active_file (\d+)", stat, re.M)
            free.append(limit_bytes - used_bytes + sum(map(int, found)))
    return free


def resident_bytes() -> int | None:
    """Returns how much memory this process holds; None where Linux does not say it."""
    try:
        text = pathlib.Path("/proc/self/statm").read_text("ascii")
    except OSError:
        return None
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_device_bytes() -> int | None:
    """Returns the most that a GPU of this process ever held; None without a GPU."""
    import tensorflow as tf  # Where devices are in use, it is loaded.

    names = [device.name for device in tf.config.list_logical_devices("GPU")]
    peaks = [tf.config.experimental.get_memory_info(name)["peak"] for name in names]
    return max(peaks, default=None)


def scores() -> dict[str, float]:
    """Returns what is known of the memory in use, MiB, by the tags of curves."""
    known = {
        "host_memory_mib": resident_bytes(),
        "device_memory_peak_mib": peak_device_bytes(),
    }
    return {tag: size / 2**20 for tag, size in known.items() if size is not None}


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that a device or the host has no memory left."""
    if isinstance(error, MemoryError):
        return True
    import tensorflow as tf  # Where the error comes from, it is loaded.

    text = str(error).lower()
    return isinstance(
        error, tf.errors.ResourceExhaustedError | tf.errors.InternalError
    ) and any(sign in text for sign in _SIGNS)


@contextlib.contextmanager
def explaining_shortage(config: config_lib.Config) -> Iterator[None]:
    """Turns errors of allocation inside the context into one that names the remedy.

    Args:
      config: all settings.

    Raises:
      errors.OutOfMemoryError: in place of such an error.
    """
    try:
        yield
    except errors.RunError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise errors.OutOfMemoryError(_describe(error, config)) from error


def _describe(error: BaseException, config: config_lib.Config) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if any(s in line.lower() for s in _SIGNS)]
    reason = (told or lines or ["nothing more is known"])[0]
    # Names of nodes and of ops say nothing to the user.
    reason = reason.rpartition("}} ")[2].partition(" [Op:")[0].strip().rstrip(".")
    place = "The host" if isinstance(error, MemoryError) else "A device"
    size = fields.format_value(config.data.image_size)
    precision = config.runtime.mixed_precision
    advice = f"lower --batch_size={config.train.batch_size} or --image_size={size}"
    if precision in ("auto", "float32"):
        advice += ", or compute in 16 bits with --mixed_precision=bfloat16"
    else:
        advice += f" (--mixed_precision={precision} saves memory already)"
    if isinstance(error, MemoryError) and config.data.cache == "memory":
        advice += ", or keep the decoded examples elsewhere with --cache=disk or none"
    return f"{place} has no memory left ({reason}): {advice}."
