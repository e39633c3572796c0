"""Checkpoints are whole, and only fit the run that wrote them."""

import functools
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer import errors
from trainer.optimizing import late_starts, optimization, rate_multiples, schedules
from trainer.run_folder import (
    checkpoint_folders,
    checkpointing,
    criterion,
    saved_weights,
)

_IDENTITY = {"seed": 0, "batch_size": 8}


def _make(rig, model_dir, **kwargs):
    kwargs = {"identity": _IDENTITY, "max_to_keep": 3, **kwargs}
    state = rig.state.to_save()
    return checkpointing.Checkpointer(str(model_dir), state=state, **kwargs)


@functools.cache
def _shared_rig():
    """Returns a rig, traced once for all tests, and the first values of its state."""
    rig = helpers.Rig(helpers.make_store(), optimizer="adam", ema_decay=0.9)
    variables = [*rig.model.variables, *rig.optimizer.variables, *rig.ema.averages]
    variables += [rig.global_step, rig.loss_scale.scale, rig.loss_scale.finite_steps]
    return rig, [(variable, variable.numpy()) for variable in variables]


def _train_and_save(model_dir, steps, window=None, **kwargs):
    """Trains the shared rig from its first values on; call it once in a test."""
    rig, initial = _shared_rig()
    for variable, value in initial:
        variable.assign(value)
    checkpointer = _make(rig, model_dir, **kwargs)
    for _ in range(steps):
        rig.train(1)
        checkpointer.save(window)
    return rig, checkpointer


def _names(model_dir):
    return sorted(path.name for path in (model_dir / "checkpoints").iterdir())


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_restoring_brings_back_every_variable(tmp_path, replicas, policy):
    rig = helpers.Rig(
        helpers.make_store(),
        replicas=replicas,
        optimizer="adam",
        policy=policy,
        ema_decay=0.9,
    )
    rig.train(3)
    variables = rig.model.variables + rig.optimizer.variables
    variables += [
        *rig.ema.averages,
        rig.global_step,
        rig.loss_scale.scale,
        rig.loss_scale.finite_steps,
    ]
    _make(rig, tmp_path).save()
    saved = [variable.numpy() for variable in variables]
    for variable in variables:
        variable.assign(tf.cast(tf.ones(variable.shape) * 7, variable.dtype))
    assert _make(rig, tmp_path).restore()
    for variable, value in zip(variables, saved, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_what_is_saved_is_published_and_a_stop_waits_for_that(tmp_path):
    seen = []

    def publish():
        metadata = checkpoint_folders.read_metadata(
            checkpoint_folders.list_checkpoints(tmp_path / "checkpoints")[-1]
        )
        seen.append((metadata.is_evaluated, checkpointer.has_unsaved_work))

    _, checkpointer = _train_and_save(tmp_path, 0, publish=publish)
    checkpointer.save()
    checkpointer.mark_evaluated(0, 0.5)
    assert seen == [(False, True), (True, True)]
    assert not checkpointer.has_unsaved_work


def test_states_of_dropout_in_older_checkpoints_are_passed_over(tmp_path):
    rig = helpers.Rig(helpers.make_store())
    seeds = [tf.Variable(np.array([n, 7], np.uint32), trainable=False) for n in (1, 2)]
    state = {"model": rig.model, "global_step": rig.global_step}

    def make(**state):
        return checkpointing.Checkpointer(
            str(tmp_path), state=state, identity={}, max_to_keep=1
        )

    make(**state, seeds=seeds).save()
    assert make(**state).restore()


class _OlderSGD(
    rate_multiples.RateMultiple, late_starts.LateStart, keras.optimizers.SGD
):
    """SGD as it was once: for a momentum of 0 it has no slots."""


def _go_on_with_sgd(model_dir, momentum, gradient, *, is_late, kind=optimization.SGD):
    """Restores, if there is something, updates a weight and saves; returns the weight.

    It begins at 5, its learning rate is 1.
    """
    weight, late = keras.Variable([5.0]), keras.Variable([7.0])
    rate = schedules.WarmupSchedule(1.0, decay="constant", num_steps=10)
    optimizer = kind(rate, momentum=momentum)
    if is_late:
        optimizer.start_late([late])
    optimizer.build([weight, late])
    step = tf.Variable(0, dtype=tf.int64)
    model = tf.train.Checkpoint(weights=[weight, late])
    checkpointer = checkpointing.Checkpointer(
        str(model_dir),
        state={"model": model, "optimizer": optimizer, "global_step": step},
        identity={},
        max_to_keep=9,
    )
    assert checkpointer.restore() == (model_dir / "checkpoints").is_dir()
    optimizer.apply([tf.constant([gradient])], [weight])
    step.assign_add(1)
    checkpointer.save()
    assert int(optimizer.iterations.numpy()) == int(step.numpy())
    return float(weight.numpy()[0])


@pytest.mark.parametrize("is_late", [False, True])
def test_a_run_goes_on_with_a_momentum_or_without(tmp_path, is_late):
    go_on = functools.partial(_go_on_with_sgd, tmp_path, is_late=is_late)
    assert go_on(0.5, 2.0) == 3.0
    assert go_on(0.5, 1.0) == 1.0  # 3 - (0.5 * 2 + 1).
    assert go_on(0.0, 1.0) == 0.0
    assert go_on(0.5, 1.0) == -1.0  # What there was of a momentum is forgotten.
    assert go_on(0.5, 1.0) == -2.5  # -1 - (0.5 * 1 + 1).


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("is_late", [False, True])
def test_older_checkpoints_without_a_momentum_are_read(tmp_path, is_late, momentum):
    go_on = functools.partial(_go_on_with_sgd, tmp_path, is_late=is_late)
    assert go_on(0.0, 2.0, kind=_OlderSGD) == 3.0
    assert go_on(momentum, 1.0) == 2.0
    assert go_on(momentum, 1.0) == 1.0 - momentum


def test_anything_else_that_nobody_needs_is_damage(tmp_path):
    rig = helpers.Rig(helpers.make_store())
    state = {"model": rig.model, "global_step": rig.global_step}
    more = {**state, "more": tf.Variable(1.0)}
    for each in (more, state):
        checkpointer = checkpointing.Checkpointer(
            str(tmp_path), state=each, identity={}, max_to_keep=1
        )
        if each is more:
            checkpointer.save()
    with pytest.raises(errors.CheckpointError, match="none can be read"):
        checkpointer.restore()


def test_nothing_to_restore_is_a_fresh_start(tmp_path):
    rig = helpers.Rig(helpers.make_store())
    assert not _make(rig, tmp_path).restore()


def test_the_newest_and_the_best_are_kept(tmp_path):
    rig = helpers.Rig(helpers.make_store())
    checkpointer = _make(rig, tmp_path, max_to_keep=2)
    for score in (0.1, 0.9, 0.2, 0.3, 0.4):
        rig.train(1)
        checkpointer.save()
        checkpointer.mark_evaluated(int(rig.global_step.numpy()), score)
    assert _names(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    restored = _make(rig, tmp_path)
    restored.restore()
    assert (restored.saved.best_step, restored.saved.best_score) == (2, 0.9)
    assert restored.saved.is_evaluated


def test_the_lowest_loss_is_the_best_and_nan_never_is(tmp_path):
    rig = helpers.Rig(helpers.make_store())
    best = criterion.Criterion("loss", lower_is_better=True)
    checkpointer = _make(rig, tmp_path, max_to_keep=9, best=best)
    found = []
    for score in (np.nan, 0.5, 0.4, 0.6, np.nan):
        rig.train(1)
        checkpointer.save()
        step = int(rig.global_step.numpy())
        is_best = checkpointer.mark_evaluated(step, score)
        found.append((is_best, checkpointer.evaluations_since_best))
    assert found == [(False, 1), (True, 0), (True, 0), (False, 1), (False, 2)]
    restored = _make(rig, tmp_path, best=best)
    restored.restore()
    assert (restored.best_score, restored.evaluations_since_best) == (0.4, 2)
    assert restored.saved.best_step == 3


def test_the_best_by_another_score_is_looked_for_anew(tmp_path, caplog):
    rig, checkpointer = _train_and_save(tmp_path, 1)
    checkpointer.mark_evaluated(1, 0.5)
    best = criterion.Criterion("loss", lower_is_better=True)
    restored = _make(rig, tmp_path, best=best)
    with caplog.at_level("INFO"):
        restored.restore()
    assert "so far was that by mean_iou; by loss" in caplog.text
    assert restored.best_score is None
    assert restored.mark_evaluated(1, 0.7)
    assert (restored.saved.best_metric, restored.saved.best_score) == ("loss", 0.7)


@pytest.mark.parametrize("was", ["validation", "", "mirrored"])
def test_scores_of_another_evaluation_are_not_compared(tmp_path, caplog, was):
    best = criterion.Criterion(subject=was)
    rig, checkpointer = _train_and_save(tmp_path, 1, best=best)
    checkpointer.mark_evaluated(1, 0.9)
    checkpointer.mark_evaluated(1, 0.8)
    best = criterion.Criterion(subject="mirrored")
    restored = _make(rig, tmp_path, best=best)
    with caplog.at_level("INFO"):
        restored.restore()
    is_other = was == "validation"  # An older checkpoint does not say of what it is.
    assert ("of another evaluation" in caplog.text) == is_other
    assert restored.evaluations_since_best == (0 if is_other else 1)
    assert restored.saved.best_step == 1  # It is kept until there is another one.
    assert restored.mark_evaluated(1, 0.5) == is_other
    assert restored.saved.best_subject == "mirrored"


@pytest.mark.parametrize(
    "best", [criterion.Criterion("loss", lower_is_better=True), None], ids=repr
)
def test_the_best_is_kept_until_there_is_another_one(tmp_path, best):
    """Not by a run alone that is done, or that makes no evaluations."""
    rig, checkpointer = _train_and_save(tmp_path, 1)
    checkpointer.mark_evaluated(1, 0.9)
    rig.train(1)
    checkpointer.save()
    checkpointer.mark_evaluated(2, 0.5)
    restored = _make(rig, tmp_path, best=best, max_to_keep=1)
    restored.restore()
    restored.prune()
    assert _names(tmp_path) == ["step-00000001", "step-00000002"]
    rig.train(1)
    restored.save()
    assert _names(tmp_path) == ["step-00000001", "step-00000003"]
    assert checkpoint_folders.find(str(tmp_path), "best")[0].name == "step-00000001"
    if best:
        assert restored.mark_evaluated(3, 0.7)
        restored.prune()
        assert _names(tmp_path) == ["step-00000003"]
    else:
        saved = restored.saved
        assert (saved.best_metric, saved.best_score) == ("mean_iou", 0.9)


def test_evaluations_are_counted_where_the_save_failed(tmp_path):
    """Only the chief knows that it did, and all workers must come to one number."""
    rig, checkpointer = _train_and_save(tmp_path, 1)
    checkpointer.mark_evaluated(1, 0.5)
    rig.train(1)  # And no save.
    assert not checkpointer.mark_evaluated(2, 0.4)
    assert checkpointer.evaluations_since_best == 1
    assert not checkpointer.mark_evaluated(2, 0.9)
    assert checkpointer.evaluations_since_best == 0
    assert checkpointer.saved.best_score == 0.5


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize(
    ("unsaved", "score", "expected"), [(0.9, 0.7, (1, 0.9)), (0.4, 0.3, (2, 0.5))]
)
def test_a_killed_run_counts_them_as_one_that_is_not(
    tmp_path, is_killed, unsaved, score, expected
):
    rig, checkpointer = _train_and_save(tmp_path, 1)
    checkpointer.mark_evaluated(1, 0.5)
    rig.train(1)  # And no save.
    checkpointer.mark_evaluated(2, unsaved)
    rig.train(1)
    checkpointer.save()
    if is_killed:
        checkpointer = _make(rig, tmp_path)
        checkpointer.restore()
    # 0.7 is the best of the steps that are saved, and not the best of all.
    assert checkpointer.mark_evaluated(3, score) == (score == 0.7)
    found = checkpointer.evaluations_since_best, checkpointer.best_score
    assert found == expected
    restored = _make(rig, tmp_path)
    restored.restore()
    assert (restored.evaluations_since_best, restored.best_score) == expected
    assert restored.saved.best_step == (3 if score == 0.7 else 1)


def test_another_setting_is_an_error_that_names_it(tmp_path):
    rig, _ = _train_and_save(tmp_path, 1)
    other = _make(rig, tmp_path, identity={"seed": 1, "batch_size": 8})
    with pytest.raises(errors.CheckpointError, match="seed was 0 and is 1"):
        other.restore()


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _flip_a_byte,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "flipped", "empty", "zeros", "missing"],
)
@pytest.mark.parametrize("file", ["state.index", "state.data*", "metadata.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, file, damage):
    rig, _ = _train_and_save(tmp_path, 2)
    (path,) = (tmp_path / "checkpoints" / "step-00000002").glob(file)
    damage(path)
    checkpointer = _make(rig, tmp_path)
    assert checkpointer.restore()
    assert int(rig.global_step.numpy()) == 1
    # Out of the way, but not lost; and the step is saved anew.
    assert _names(tmp_path) == ["step-00000001", "step-00000002.damaged-1"]
    rig.train(1)
    checkpointer.save()
    assert _make(rig, tmp_path).restore()
    assert int(rig.global_step.numpy()) == 2


class _FullDisk:
    """Stands for `tf.train.Checkpoint` where there is no room to write."""

    def write(self, prefix):
        with open(f"{prefix}.data", "w") as file:
            file.write("half")
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}: no space")


def test_a_full_disk_keeps_the_older_checkpoint_and_ends_the_run_in_the_end(tmp_path):
    rig, checkpointer = _train_and_save(tmp_path, 1)
    whole = checkpointer._checkpoint
    for _ in range(2):
        checkpointer._checkpoint = _FullDisk()
        for _ in range(2):
            rig.train(1)
            checkpointer.save()
            assert checkpointer.has_unsaved_work
        assert "partial" not in "".join(_names(tmp_path))
        checkpointer._checkpoint = whole
        checkpointer.save()
        assert not checkpointer.has_unsaved_work
    assert _names(tmp_path) == [f"step-0000000{step}" for step in (1, 3, 5)]
    checkpointer._checkpoint = _FullDisk()
    rig.train(1)
    checkpointer.save()
    checkpointer.save()
    with pytest.raises(errors.CheckpointError, match="no space.*make room in"):
        checkpointer.save()


def test_an_evaluation_is_noted_in_the_checkpoint_it_belongs_to(tmp_path):
    rig, checkpointer = _train_and_save(tmp_path, 1)
    assert not checkpointer.saved.is_evaluated
    assert checkpointer.mark_evaluated(1, 0.5)
    rig.train(1)
    checkpointer.save()
    restored = _make(rig, tmp_path)
    restored.restore()
    assert not restored.saved.is_evaluated
    assert (restored.saved.best_step, restored.saved.best_score) == (1, 0.5)
    assert not restored.mark_evaluated(2, 0.4)


def test_damage_everywhere_does_not_start_over(tmp_path):
    rig, _ = _train_and_save(tmp_path, 1)
    metadata = tmp_path / "checkpoints" / "step-00000001" / "metadata.json"
    metadata.write_text("{")
    with pytest.raises(errors.CheckpointError, match="none can be read"):
        _make(rig, tmp_path).restore()


def test_an_unfinished_save_is_no_checkpoint_and_is_cleaned_up(tmp_path):
    rig, _ = _train_and_save(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000009.partial").mkdir()
    (tmp_path / "checkpoints" / "notes of the user").mkdir()
    assert _make(rig, tmp_path).restore()
    assert int(rig.global_step.numpy()) == 1
    assert _names(tmp_path) == ["notes of the user", "step-00000001"]


def test_another_process_than_the_chief_writes_nothing(tmp_path):
    _train_and_save(tmp_path, 1, is_chief=False)
    assert list(tmp_path.iterdir()) == []


def _restore_model(model, model_dir, which):
    """Restores weights as an evaluation does; returns the step."""
    paths = checkpoint_folders.find(str(model_dir), which)
    return saved_weights.restore_model(model, None, paths).step


def test_weights_alone_are_restored_from_last_best_or_a_path(tmp_path):
    rig = helpers.Rig(helpers.make_store())
    checkpointer = _make(rig, tmp_path)
    kernels = {}
    for score in (0.9, 0.1, 0.2):
        rig.train(1)
        checkpointer.save()
        checkpointer.mark_evaluated(int(rig.global_step.numpy()), score)
        kernels[int(rig.global_step.numpy())] = rig.model.get_weights()[0]
    fresh = helpers.build_tiny()
    second = str(tmp_path / "checkpoints" / "step-00000002")
    for which, step in (("last", 3), ("best", 1), (second, 2)):
        assert _restore_model(fresh, tmp_path, which) == step
        np.testing.assert_array_equal(fresh.get_weights()[0], kernels[step])


def test_no_checkpoint_to_evaluate_is_an_error(tmp_path):
    with pytest.raises(errors.CheckpointError, match="holds no checkpoint; train"):
        _restore_model(helpers.build_tiny(), tmp_path, "last")


def test_weights_of_another_model_do_not_fit(tmp_path):
    _train_and_save(tmp_path, 1)
    other = helpers.build_tiny(num_classes=5)
    with pytest.raises(
        errors.CheckpointError, match="step-00000001 cannot be restored"
    ):
        _restore_model(other, tmp_path, "last")


def _edit_metadata(path, **changes):
    metadata = json.loads((path / "metadata.json").read_text())
    metadata = {k: v for k, v in {**metadata, **changes}.items() if v is not ...}
    (path / "metadata.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    "changes", [{"step": 3}, {"window": {"total": "bad"}}], ids=repr
)
def test_damaged_metadata_give_way_to_the_checkpoint_before(tmp_path, changes, caplog):
    rig, _ = _train_and_save(tmp_path, 2, window={"total": 0.5})
    _edit_metadata(tmp_path / "checkpoints" / "step-00000002", **changes)
    checkpointer = _make(
        rig, tmp_path, is_window=lambda window: isinstance(window["total"], float)
    )
    assert checkpointer.restore()
    assert int(rig.global_step.numpy()) == 1
    assert "step-00000002: it cannot be read (metadata.json" in caplog.text


def test_evaluation_passes_over_damaged_metadata(tmp_path, caplog):
    _train_and_save(tmp_path, 2)
    _edit_metadata(tmp_path / "checkpoints" / "step-00000002", identity=...)
    model = helpers.build_tiny()
    for which in ("last", "best"):
        assert _restore_model(model, tmp_path, which) == 1
    assert "step-00000002: it cannot be read (metadata.json" in caplog.text


def test_variables_of_another_step_are_damage(tmp_path):
    rig, _ = _train_and_save(tmp_path, 3)
    folder = tmp_path / "checkpoints"
    for path in (folder / "step-00000001").glob("state*"):
        (folder / "step-00000003" / path.name).write_bytes(path.read_bytes())
    model = helpers.build_tiny()
    assert _restore_model(model, tmp_path, "last") == 2
    assert _make(rig, tmp_path).restore()
    assert int(rig.global_step.numpy()) == 2
    assert "step-00000003.damaged-1" in _names(tmp_path)


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_without_the_best_checkpoint_the_newest_is_taken(tmp_path, damage, caplog):
    rig = helpers.Rig(helpers.make_store())
    checkpointer = _make(rig, tmp_path)
    for score in (0.9, 0.1, 0.2):
        rig.train(1)
        checkpointer.save()
        checkpointer.mark_evaluated(int(rig.global_step.numpy()), score)
    best = tmp_path / "checkpoints" / "step-00000001"
    if damage == "gone":
        best.rename(tmp_path / "elsewhere")
    else:
        _truncate(best / "state.index")
    model = helpers.build_tiny()
    assert _restore_model(model, tmp_path, "best") == 3
    assert {"gone": "is gone", "damaged": "Skipping"}[damage] in caplog.text


def test_folders_with_characters_of_patterns_are_read(tmp_path):
    name = "[x] a*b?\\ é {b}"
    rig, _ = _train_and_save(tmp_path / name, 2)
    assert _make(rig, tmp_path / name).restore()
    model = helpers.build_tiny()
    assert _restore_model(model, tmp_path / name, "last") == 2


def test_files_in_the_place_of_folders_are_out_of_the_way(tmp_path):
    rig, _ = _train_and_save(tmp_path, 1)
    folder = tmp_path / "checkpoints"
    (folder / "step-00000002").write_text("a file")
    (folder / "step-00000002.partial").write_text("a file")
    (folder / "step-00000000").write_text("a file")
    checkpointer = _make(rig, tmp_path, max_to_keep=1)
    assert checkpointer.restore()
    rig.train(1)
    checkpointer.save()
    assert _names(tmp_path) == [
        "step-00000000",
        "step-00000002",
        "step-00000002.damaged-1",
    ]
    assert (folder / "step-00000002").is_dir()


def test_without_the_lock_nothing_is_saved_noted_or_removed(tmp_path):
    is_lost = []

    def check():
        if is_lost:
            raise errors.LockLostError("lost")

    rig, _ = _train_and_save(tmp_path, 1)
    checkpointer = _make(rig, tmp_path, check_lock=check)
    checkpointer.restore()
    is_lost.append(True)
    partial = tmp_path / "checkpoints" / "step-00000002.partial"
    partial.mkdir()
    with pytest.raises(errors.LockLostError):
        checkpointer.restore()
    partial.rmdir()  # Whoever has the lock is writing it.
    with pytest.raises(errors.LockLostError):
        checkpointer.mark_evaluated(1, 0.5)
    rig.train(1)
    with pytest.raises(errors.LockLostError):
        checkpointer.save()
    assert _names(tmp_path) == ["step-00000001"]


def test_a_score_that_cannot_be_noted_is_left_to_the_next_save(tmp_path, monkeypatch):
    rig, checkpointer = _train_and_save(tmp_path, 1)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert checkpointer.mark_evaluated(1, 0.5)
    assert not checkpointer.is_noted
    assert not any("partial" in p.name for p in tmp_path.rglob("*"))
    rig.train(1)
    checkpointer.save()
    assert checkpointer.is_noted
    restored = _make(rig, tmp_path)
    restored.restore()
    assert (restored.saved.best_step, restored.saved.best_score) == (1, 0.5)


def test_metadata_is_json_with_step_score_and_identity(tmp_path):
    _train_and_save(tmp_path, 1, window={"total": 0.5})
    path = tmp_path / "checkpoints" / "step-00000001" / "metadata.json"
    assert json.loads(path.read_text()) == {
        "step": 1,
        "identity": _IDENTITY,
        "is_evaluated": False,
        "best_step": None,
        "best_score": None,
        "best_metric": "mean_iou",
        "best_subject": "",
        "best_seen": None,
        "evaluations_since_best": 0,
        "window": {"total": 0.5},
    }
