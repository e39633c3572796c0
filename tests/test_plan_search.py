"""The search for a plan measures little, and plans what its rules say."""

import math

import pytest

from trainer import flags
from trainer.planning import costs, notes, plan_file, search
from trainer.settings import config

_GIB = 2**30


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


class _Machine:
    """What settings take on a machine of known speed; remembers what was measured."""

    def __init__(
        self,
        *,
        bfloat16=2.0,
        trained=4.0,
        trained_memory=1,
        memory_limit=100 * _GIB,
    ):
        self._trained_memory = trained_memory
        self._bfloat16 = bfloat16
        self._trained = trained
        self._memory_limit = memory_limit
        self.measured = []

    def __call__(self, settings):
        config.from_dict({"model_dir": "x", "time_budget": "9m", **settings})
        self.measured.append(settings)
        pixels = math.prod(settings["crop_size"] or settings["image_size"])
        step = 0.01 + pixels / 128**2 * 0.1
        step *= 1 if settings["freeze_encoder"] else self._trained
        if settings["mixed_precision"] == "bfloat16":
            step /= self._bfloat16
        parts = settings["gradient_accumulation_steps"]
        assert settings.get("batch_size", 16) % parts == 0
        size = 1 if settings["freeze_encoder"] else self._trained_memory
        memory = _GIB * (0.5 + size * pixels / 128**2 / parts)
        if memory > self._memory_limit:
            return None
        return notes.Measured(
            costs=costs.Costs(start=20, step=step, evaluation=2, save=0.5, end=1),
            memory_bytes=memory,
        )

    @property
    def sizes(self):
        return [settings["image_size"][0] for settings in self.measured]


def _facts(**others):
    return notes.Facts(
        **{
            "num_train": 400,
            "num_eval": 100,
            "height": 300,
            "width": 300,
            "class_names": ("sky", "tree"),
            "class_pixels": (600, 400),
            "class_examples": (400, 400),
            "memory_bytes": 8 * _GIB,
            "has_weights": True,
            **others,
        }
    )


def _search(machine, secs, *, given=None, **others):
    given = {"mixed_precision": "float32", **(given or {})}
    found = search.search(_facts(**others), given, machine, secs=secs)
    return found, {name: choice.value for name, choice in found.choices.items()}


def test_with_time_the_largest_size_and_a_trained_encoder():
    machine = _Machine()
    plan, values = _search(machine, 3600)
    assert values["image_size"] == (256, 256)
    assert not values["freeze_encoder"] and values["encoder_lr_multiplier"] == 0.3
    # 96, the next of 2.5 times its pixels, and 256, which is to be trained.
    assert machine.sizes == [96, 160, 256]
    # A step takes 4 (0.01 + 0.4) = 1.64 s.
    assert plan.secs == pytest.approx(3600 * 0.97, rel=0.01)
    assert plan.num_steps == pytest.approx((3600 * 0.97 - 21) / 1.64, rel=0.02)
    assert plan.epochs == plan.num_steps * 16 / 400
    assert plan.memory_bytes == 4.5 * _GIB


def test_with_less_time_a_smaller_size():
    # 30 epochs of 25 steps: at 96 pixels 199 s, at 128 330, at 160 499, at 192 705.
    machine = _Machine()
    plan, values = _search(machine, 600)
    assert values["image_size"] == (160, 160) and not values["freeze_encoder"]
    assert plan.epochs >= 30
    assert machine.sizes == [96, 160]


def test_with_little_time_a_frozen_encoder():
    # Trained, 750 steps take 199 s; frozen, 50 at 96 pixels and 83 at 128.
    machine = _Machine()
    _, values = _search(machine, 130)
    assert values["freeze_encoder"] and "encoder_lr_multiplier" not in values
    assert values["image_size"] == (128, 128)
    assert [s["freeze_encoder"] for s in machine.measured] == [False, True, True, True]


def test_with_next_to_no_time_what_fits():
    plan, values = _search(_Machine(), 60)
    assert values["image_size"] == (96, 96)
    assert 0 < plan.epochs < 30
    assert "would be good: give more time" in plan.choices["image_size"].reason


def test_no_time_at_all_is_no_plan():
    plan, _ = _search(_Machine(), 20)
    assert plan.num_steps == 0
    # 1.1 x (20 + 0.066 + 2 + 0.5 + 1) / 0.97 = 26.7
    assert plan.shortest_secs == 27
    assert _search(_Machine(), plan.shortest_secs)[0].num_steps > 0


@pytest.mark.parametrize(
    "given",
    [{}, {"checkpoint_interval": 1}, {"epochs_between_evals": 1}],
)
def test_what_a_run_is_told_to_do_often_is_in_its_time(given):
    plan, values = _search(_Machine(), 1800, given=given)
    # A step of the size that is planned, then a run as training measures it.
    side = values["image_size"][0]
    measured = costs.Costs(
        start=20, step=4 * (0.01 + side**2 / 128**2 / 10), evaluation=2, save=0.5, end=1
    )
    train = config.from_dict({"model_dir": "x", **values, **given}).train
    rhythm = costs.Rhythm(
        num_examples=400,
        batch_size=16,
        epochs_between_evals=train.epochs_between_evals,
        checkpoint_interval=train.checkpoint_interval,
    )
    expected = costs.duration(measured, rhythm, train.train_steps)
    assert plan.secs == pytest.approx(expected)
    assert plan.secs <= 1800 and plan.epochs >= 30


def test_a_run_is_longer_than_the_warm_up_that_is_given():
    given = {"warmup_steps": 200}
    # 201 steps of a frozen encoder at 96 pixels take 13 s; with the start and two
    # evaluations 39 s, of 0.97 times 41 s.
    plan, _ = _search(_Machine(), 40, given=given)
    assert plan.num_steps == 0
    assert 41 <= plan.shortest_secs <= 46
    plan, values = _search(_Machine(), plan.shortest_secs, given=given)
    assert plan.num_steps > 200 and "warmup_steps" not in values
    # More steps than would be of use.
    plan, _ = _search(_Machine(), 10**6, given={"warmup_steps": 5000})
    assert plan.num_steps == 5001


def test_time_without_end_is_not_all_used():
    plan, _ = _search(_Machine(), 10**6)
    assert plan.num_steps == 4500 and plan.secs < 10**4
    assert plan.choices["train_steps"].reason == "180.0 epochs, and more are of no use"


@pytest.mark.parametrize(
    ("speed", "value", "step"), [(2.0, "bfloat16", 0.82), (1.05, "float32", 1.64)]
)
def test_a_cpu_computes_in_the_format_that_is_faster(speed, value, step):
    machine = _Machine(bfloat16=speed)
    facts = _facts()
    plan = search.search(facts, {}, _auto(machine), secs=3000)
    assert plan.choices["mixed_precision"].value == value
    spent = plan.num_steps * step
    assert spent == pytest.approx(3000 * 0.97 - 21, rel=0.05)


def _auto(machine):
    """Makes float32 of what is left to the machine, as a CPU does."""
    return lambda settings: machine({"mixed_precision": "float32", **settings})


def test_an_encoder_is_trained_if_bfloat16_leaves_the_time_for_it():
    # At 96 pixels 1,000 steps take 265 s, and half of that in bfloat16.
    machine = _Machine()
    plan = search.search(_facts(), {}, _auto(machine), secs=200)
    assert not plan.choices["freeze_encoder"].value
    # Of 80 s, a fourth of the steps is not even half of what is needed.
    machine = _Machine()
    plan = search.search(_facts(), {}, _auto(machine), secs=80)
    assert plan.choices["freeze_encoder"].value
    frozen = [settings["freeze_encoder"] for settings in machine.measured]
    assert frozen[:3] == [False, True, True]


def test_a_gpu_is_not_asked_for_its_format():
    machine = _Machine()
    plan = search.search(_facts(has_gpu=True), {}, _auto(machine), secs=7200)
    assert "mixed_precision" not in plan.choices
    assert len(machine.measured) == 3


def test_what_is_given_is_not_chosen():
    machine = _Machine()
    given = {"image_size": (64, 96), "batch_size": 4, "ema_decay": 0.5, "loss": "dice"}
    plan, values = _search(machine, 1200, given=given)
    assert not given.keys() & values.keys()
    assert [s["image_size"] for s in machine.measured] == [(64, 96)]
    assert all(s["loss"] == "dice" and s["batch_size"] == 4 for s in machine.measured)
    assert plan.epochs == plan.num_steps * 4 / 400


@pytest.mark.parametrize("policy", ["none", "strong"])
def test_a_policy_that_is_given_says_all_changes(policy):
    machine = _Machine()
    _, values = _search(machine, 600, given={"augment": policy})
    assert not {"augment", "random_scale"} & values.keys()
    assert all(s["augment"] == policy for s in machine.measured)
    assert not any("random_scale" in settings for settings in machine.measured)
    # One change that is given counts beside the others.
    given = {"random_scale": (0.5, 1.0)}
    _, values = _search(machine, 600, given=given)
    assert values["augment"] == "light" and "random_scale" not in values


def test_the_learning_rate_is_that_of_the_optimizer_that_is_given():
    _, values = _search(_Machine(), 600, given={"optimizer": "sgd"})
    assert values["learning_rate"] == 1e-2 and "optimizer" not in values
    assert _search(_Machine(), 600)[1]["learning_rate"] == 1e-3


def test_an_encoder_that_is_to_be_trained_is_and_learns_slowly():
    machine = _Machine()
    _, values = _search(machine, 60, given={"freeze_encoder": False})
    assert values["encoder_lr_multiplier"] == 0.3 and "freeze_encoder" not in values
    assert not any(settings["freeze_encoder"] for settings in machine.measured)


def test_another_encoder_keeps_its_own_width():
    given = {"encoder": "plain", "encoder_weights": "none", "freeze_encoder": False}
    _, values = _search(_Machine(), 600, given=given, has_weights=False)
    assert not {"encoder_alpha", "decoder_filters", "encoder"} & values.keys()


def test_without_weights_the_encoder_is_one_that_takes_what_is_given():
    # Of the original U-Net, which is chosen otherwise, the stride is fixed.
    given = {"encoder_output_stride": 16, "decoder_dropout": 0.1}
    plan, values = _search(_Machine(), 600, given=given, has_weights=False)
    assert (values["encoder"], values["encoder_weights"]) == ("mobilenet_v2", "none")
    assert not {"encoder_alpha", "decoder_filters"} & values.keys()
    reason = plan.choices["encoder"].reason
    assert reason.startswith("it takes --encoder_output_stride; no ImageNet weights")
    given = {"encoder_alpha": 0.5, "decoder_dropout": 0.1}
    _, values = _search(_Machine(), 600, given=given, has_weights=False)
    assert values["encoder"] == "plain" and "decoder_filters" in values


def test_a_batch_is_split_where_the_memory_ends():
    # At 256 pixels 4.5 GiB; of 4 GiB 3.2 may be used: 0.5 + 4 / 2.
    plan, values = _search(_Machine(), 7200, memory_bytes=4 * _GIB)
    assert values["gradient_accumulation_steps"] == 2
    assert plan.memory_bytes == 2.5 * _GIB
    # Where it ends in the middle of a measurement.
    machine = _Machine(memory_limit=3 * _GIB)
    _, values = _search(machine, 7200)
    assert values["gradient_accumulation_steps"] == 2
    with pytest.raises(MemoryError):
        _search(_Machine(memory_limit=0.5 * _GIB), 7200)


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_batch_is_planned_in_the_parts_that_it_was_measured_in(has_gpu):
    # Whole, 96x96 takes 1.06 GiB, and in 4 parts 0.64; 256x256 in 16 parts 0.75.
    machine = _Machine(memory_limit=0.8 * _GIB)
    plan, values = _search(machine, 7200, has_gpu=has_gpu, memory_bytes=64 * _GIB)
    assert values["image_size"] == (256, 256)
    assert values["gradient_accumulation_steps"] == 16
    assert machine.measured[-1]["gradient_accumulation_steps"] == 16
    assert plan.memory_bytes == 0.75 * _GIB
    reason = plan.choices["gradient_accumulation_steps"].reason
    assert reason.startswith("there is not the memory for a batch in 8 parts of 256x2")
    assert "whole batch fits" not in reason


def test_a_batch_that_a_gpu_takes_whole_is_not_split():
    _, values = _search(_Machine(), 7200, has_gpu=True, memory_bytes=_GIB)
    assert "gradient_accumulation_steps" not in values


def test_more_parts_are_counted_from_those_that_were_measured():
    # 96x96 in 2 parts; 256x256 in 8: 1 GiB, and of 1.2 GiB only 0.96 may be used.
    machine = _Machine(memory_limit=_GIB)
    _, values = _search(machine, 7200, memory_bytes=int(1.2 * _GIB))
    assert values["gradient_accumulation_steps"] == 16


def test_what_is_too_large_however_a_batch_is_split_is_not_planned():
    # Whole, 1.06 GiB at 96 pixels, 2.06 at 160, 2.75 at 192, 3.56 at 224.
    given = {"gradient_accumulation_steps": 1}
    machine = _Machine(memory_limit=3 * _GIB)
    plan, values = _search(machine, 7200, given=given)
    assert values["image_size"] == (192, 192)
    assert machine.sizes == [96, 160, 256, 224, 192]
    assert plan.choices["image_size"].reason == (
        "the largest that fits: there is not the memory for a whole batch of 224x224"
    )
    # A batch of 9 on 3 devices: 3 rows each, which are not to be had in 2 parts.
    machine = _Machine(memory_limit=2 * _GIB)
    plan, values = _search(machine, 7200, num_replicas=3, num_train=150)
    assert machine.sizes == [96, 160, 128]
    assert values["image_size"] == (128, 128)


def test_a_frozen_encoder_is_not_split_as_a_trained_one_had_to_be():
    # At 96 pixels 2.75 GiB in one part and 1.6 in two; frozen 1.06.
    machine = _Machine(trained_memory=4, memory_limit=2 * _GIB)
    _, values = _search(machine, 60, has_gpu=True)
    assert values["freeze_encoder"] and machine.sizes == [96, 96, 96]
    assert "gradient_accumulation_steps" not in values


def test_parts_that_are_given_are_tried_once():
    machine = _Machine(memory_limit=0.5 * _GIB)
    with pytest.raises(MemoryError):
        _search(machine, 7200, given={"gradient_accumulation_steps": 2})
    assert machine.sizes == [96]


def test_large_files_are_planned_in_windows():
    machine = _Machine()
    # 750 steps take 2,730 s in windows of 384, and 4,830 s of 512.
    _, values = _search(machine, 3600, height=1100, width=2000)
    assert values["image_size"] == (1088, 1984)
    assert values["crop_size"] == (384, 384)
    assert values["cache"] == "disk"


def test_windows_that_are_given_are_of_whole_files():
    _, values = _search(
        _Machine(), 3600, given={"crop_size": (64, 64)}, height=1100, width=2000
    )
    assert values["image_size"] == (1088, 1984) and "crop_size" not in values


@pytest.mark.parametrize("has_weights", [True, False])
def test_the_file_of_a_plan_is_the_plan(tmp_path, has_weights):
    given = {"dataset": "folder", "data_dir": "/data", "mixed_precision": "float32"}
    machine = _Machine()
    plan = search.search(
        _facts(has_weights=has_weights, class_pixels=(990, 10)),
        given,
        machine,
        secs=600,
    )
    path = tmp_path / "plan.flags"
    text = plan_file.describe(
        plan,
        given,
        path="runs/a plan/plan.flags",
        time_budget="10m",
        machine="2 CPU cores",
        warnings=["it is blue"],
    )
    path.write_text(text)
    made, remarks = flags.read_config(["--model_dir=x", f"--flagfile={path}"])
    assert remarks == []
    values = {name: choice.value for name, choice in plan.choices.items()}
    assert {n: made.as_dict()[n] for n in values} == values
    assert made.given() == {
        **{n: v for n, v in {**given, **values}.items() if n in made.given()},
        "model_dir": "x",
    }
    assert "# The data: it is blue." in text
    assert "trainer.main --flagfile='runs/a plan/plan.flags' --model_dir=" in text
    assert "# tree has 1.00% of the pixels\n--class_weights=inverse_sqrt\n" in text
    assert f"epochs\n--train_steps={plan.num_steps}\n" in text
    assert "# Predicted: 9m4" in text or "# Predicted: 9m3" in text
