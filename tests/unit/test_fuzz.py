"""The fuzzing run itself: the same number gives the same input, and what goes wrong is kept."""

import pytest

from tests.fuzz import run


def test_an_input_depends_on_seed_and_number_alone():
    seeds = run.corpus()

    assert run.made(1, 7, seeds) == run.made(1, 7, seeds)
    assert len({run.made(1, number, seeds) for number in range(50)}) > 40


def test_an_exception_is_a_finding_and_its_input_is_kept(tmp_path, monkeypatch):
    def fail(raw, number):
        raise ValueError("escaped")

    monkeypatch.setattr(run, "exercise", fail)
    monkeypatch.setattr(run.logging, "disable", lambda: None)
    figures = run.work(1, 0, 3, tmp_path)

    assert (figures.inputs, len(figures.findings)) == (3, 3)
    assert sorted(path.suffix for path in tmp_path.iterdir())[:1] == [".eml"]
    assert "escaped" in next(tmp_path.glob("*.txt")).read_text("utf-8")


@pytest.mark.parametrize("number", range(8))
def test_a_sound_input_leaves_nothing(number, tmp_path, monkeypatch):
    monkeypatch.setattr(run.logging, "disable", lambda: None)
    figures = run.work(1, number, 1, tmp_path)

    assert (figures.findings, list(tmp_path.iterdir()), figures.outcomes.total()) == ([], [], 1)
