"""Machines that add lines to one remote file at the same time lose none of them."""

import contextlib
import itertools

import pytest

from trainer import errors
from trainer.remote import copies, fsspec_store, lines, stores

_NAME = "evaluations.jsonl"

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


class _Killed(BaseException):
    """As SIGKILL: nothing in the program may catch it."""


class _Machines:
    """Machines that each have a copy of one new folder in memory."""

    def __init__(self, folder):
        self.store = stores.open_store(f"memory://lines/{next(_numbers)}", "model_dir")
        self._folder = folder

    @contextlib.contextmanager
    def working(self, name):
        """Yields the copy that a machine works in, from its start to its end."""
        copy = copies.Copy(self.store, self._folder / name)
        copy.open()
        try:
            yield copy
            copy.publish()
        finally:
            copy.close()

    def read(self):
        return (self.store.read(_NAME) or b"").decode().splitlines()


@pytest.fixture(name="machines")
def _machines(tmp_path):
    return _Machines(tmp_path)


def _add(copy, *texts):
    with (copy.folder / _NAME).open("a") as file:
        file.writelines(f"{text}\n" for text in texts)


def _lines_of(copy):
    return (copy.folder / _NAME).read_text().splitlines()


def test_lines_of_all_machines_are_kept_and_seen(machines):
    with machines.working("a") as copy:
        _add(copy, "first")
    with machines.working("a") as a, machines.working("b") as b:
        _add(a, "of a")
        _add(b, "of b", "of b, too")
    expected = {"first", "of a", "of b", "of b, too"}
    assert sorted(machines.read()) == sorted(expected)  # Each once.
    for name in ("a", "b", "new"):
        with machines.working(name) as copy:
            assert set(_lines_of(copy)) == expected
    with machines.working("a") as copy:
        (copy.folder / "report.html").write_text("page")
        changes = _count_operations(copy.publish)
    assert changes == 1  # What has not changed is not written again.


_OPERATIONS = ("_list", "_read", "_write", "_delete", "_put")


@contextlib.contextmanager
def _doing_at(number, deed):
    """Does something before the n-th operation on a remote folder; yields them."""
    seen, is_busy = [], []
    with pytest.MonkeyPatch.context() as patch:
        for name in _OPERATIONS:
            original = getattr(fsspec_store.FsspecStore, name)

            def operate(store, *args, _name=name, _original=original):
                if not is_busy:
                    seen.append(_name)
                    if len(seen) == number:
                        is_busy.append(True)
                        deed()
                        is_busy.clear()
                return _original(store, *args)

            patch.setattr(fsspec_store.FsspecStore, name, operate)
        yield seen


def _count_operations(call):
    with _doing_at(0, lambda: None) as seen:
        call()
    return sum(name in ("_write", "_delete", "_put") for name in seen)


@pytest.mark.parametrize("is_first", [False, True])
def test_whoever_comes_between_any_two_operations_loses_nothing(tmp_path, is_first):
    number, is_over = 0, False
    while not is_over:
        number += 1
        machines = _Machines(tmp_path / str(number))
        if not is_first:
            with machines.working("a") as copy:
                _add(copy, "first")
        with machines.working("b") as b:
            _add(b, "of b")
            with machines.working("a") as a:
                _add(a, "of a")
                with _doing_at(number, b.publish) as seen:
                    a.publish()
                is_over = len(seen) < number
        assert {"of a", "of b"} <= set(machines.read()), number
    assert number > 6


def _die():
    raise _Killed


def test_whoever_is_killed_has_added_its_lines_when_it_comes_back(tmp_path):
    found = []
    for number in itertools.count(1):
        machines = _Machines(tmp_path / str(number))
        try:
            with machines.working("a") as a:
                _add(a, "of a")
                with _doing_at(number, _die):
                    a.publish()
            break
        except _Killed:
            a.close()
        with machines.working("b") as b:
            _add(b, "of b")
        found.append(machines.read())
        with machines.working("a") as a:
            assert {"of a", "of b"} == set(_lines_of(a)), number
        assert {"of a", "of b"} == set(machines.read()), number
    # Once its own file is there, the next machine takes it in.
    assert found[0] == ["of b"] and found[-1] == ["of a", "of b"]


def test_a_slow_writer_that_had_read_before_takes_nothing_away(machines):
    """Its last look finds the file of the other."""
    with machines.working("a") as a, machines.working("b") as b:
        _add(a, "of a")
        _add(b, "of b")
        a.publish()
        kept = list(machines.store.list())
        machines.store.write(_NAME, b"of c\n")  # Of one who had read before that.
        assert [lines.file_of(name) for name in kept] == [_NAME, _NAME]
    assert set(machines.read()) == {"of a", "of b", "of c"}


def test_own_files_go_when_nobody_can_write_without_them(machines, monkeypatch):
    with machines.working("a") as copy:
        _add(copy, "1")
    with machines.working("a") as copy:
        _add(copy, "2")
    assert len(machines.store.list()) == 3
    monkeypatch.setattr(lines, "_KEPT_SECS", 0)
    with machines.working("a") as copy:
        assert not list(copy.folder.glob("*.new-*"))
        _add(copy, "3")
    assert len(machines.store.list()) == 2  # The newest one stays.
    assert machines.read() == ["1", "2", "3"]


@pytest.mark.parametrize(("num_checks", "num_files"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_who_has_lost_the_run_changes_nothing_more(machines, num_checks, num_files):
    def check():
        if not left:
            raise errors.LockLostError("lost")
        left.pop()

    left = [None] * num_checks
    with (
        pytest.raises(errors.LockLostError),
        machines.working("a") as copy,
    ):
        _add(copy, "1")
        copy.guard = check
        copy.publish()
    assert len(machines.store.list()) == num_files


def test_a_line_that_somebody_removed_does_not_come_back(machines, monkeypatch):
    monkeypatch.setattr(lines, "_KEPT_SECS", -1)
    with machines.working("a") as copy:
        _add(copy, "good", "bad")
    machines.store.write(_NAME, b"good\n")
    with machines.working("a") as copy:
        assert _lines_of(copy) == ["good"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("evaluations.jsonl", "evaluations.jsonl"),
        ("a/export_evaluations.jsonl", "a/export_evaluations.jsonl"),
        (f"a/evaluations.jsonl.new-{'0' * 32}", "a/evaluations.jsonl"),
        ("metrics.jsonl", ""),
        (f"metrics.jsonl.new-{'0' * 32}", ""),
        ("evaluations/a.png", ""),
    ],
)
def test_files_of_lines_are_those_of_evaluations(name, expected):
    assert lines.file_of(name) == expected
