"""Calibration before the first compilation: on an unknown machine alone, once, and never on a busy one."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from layoutsel.compile import calibration
from layoutsel.compile.calibration import BusyMachine, Calibration, calibrate, calibrate_first
from layoutsel.compile.session import Session
from layoutsel.cost import adapt
from layoutsel.cost.corrections import NOISE
from layoutsel.cost.learned import LearnedModel
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.device.machine import this_machine
from layoutsel.zoo.sweep import sweep_module
from tvm_passes.errors import LayoutselError

PEAKS = MachinePeaks(
    threads=2, gflops=100.0, cache_gbps=50.0, memory_gbps=20.0, cache_bytes=1 << 20
)


@pytest.fixture(scope="module")
def session():
    return Session.open(sweep_module(2), threads=2)


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """A cache folder without a calibration; the calls of `calibrate`."""
    monkeypatch.setattr(adapt.platformdirs, "user_cache_dir", lambda _name: str(tmp_path))
    calls = []

    def fake(**options):
        calls.append(options)
        return Calibration(
            measurements=9, seconds=1.0, error_before=0.4, error_after=0.2, file="calibration.json"
        )

    monkeypatch.setattr(calibration, "calibrate", fake)
    return calls


@pytest.fixture
def other_machine(monkeypatch):
    """The shipped model has seen this machine, perhaps."""
    shipped = LearnedModel.load()
    parts = {name: replace(part, machines=()) for name, part in shipped.card.parts.items()}
    stranger = replace(shipped, card=replace(shipped.card, parts=parts))
    monkeypatch.setattr(LearnedModel, "load", classmethod(lambda cls, folder=None: stranger))


def test_an_unknown_machine_is_calibrated_before_the_first_compilation(
    session, unknown, other_machine, caplog
):
    with caplog.at_level(logging.WARNING):
        calibrate_first(session)
    assert unknown == [{"threads": 2, "cost_model": None, "needs_idle": True}]
    assert "--no-calibrate" in caplog.text
    assert "40 % before, 20 % after" in caplog.text


@pytest.mark.parametrize(
    "change", [{"calibrate": False}, {"cost": "measured"}, {"cost": "roofline"}]
)
def test_it_is_left_out_where_nothing_is_predicted_or_asked(
    session, unknown, other_machine, change
):
    calibrate_first(replace(session, options=replace(session.options, **change)))
    assert not unknown


def test_it_happens_once(session, unknown, other_machine, tmp_path):
    file = adapt.adaptation_path(this_machine().fingerprint, 2, tmp_path)
    adapt.save(adapt.Adaptation(), LearnedModel.load().version, file)
    calibrate_first(session)
    assert not unknown


def test_a_failure_is_a_warning(session, unknown, other_machine, monkeypatch, caplog):
    def busy(**_options):
        raise BusyMachine("other processes take 50 % of the processor")

    monkeypatch.setattr(calibration, "calibrate", busy)
    with caplog.at_level(logging.WARNING):
        calibrate_first(session)
    assert "not calibrated: other processes take 50 %" in caplog.text


def test_a_busy_machine_is_waited_for_then_refused_or_trusted_less(monkeypatch, caplog):
    shares, pauses = [0.3, 0.9, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3], []
    monkeypatch.setattr(calibration, "probe", lambda _: replace(PEAKS, cpu_share=shares.pop(0)))
    monkeypatch.setattr(calibration.time, "sleep", pauses.append)
    assert calibration._noise(2, needs_idle=True) == NOISE
    assert len(pauses) == 1
    with pytest.raises(BusyMachine, match="70 % of the processor"):
        calibration._noise(2, needs_idle=True)
    with caplog.at_level(logging.WARNING):
        assert calibration._noise(2, needs_idle=False) > NOISE
    assert "less certain" in caplog.text


@pytest.mark.nightly
def test_it_measures_corrects_and_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(adapt.platformdirs, "user_cache_dir", lambda _name: str(tmp_path))
    done = calibrate(threads=2, most=8)
    assert 4 <= done.measurements <= 8
    kept = adapt.load(LearnedModel.load().version, tmp_path / done.file)
    assert kept is not None
    assert len(kept.errors) == done.measurements


def test_too_little_time_is_one_error(monkeypatch):
    monkeypatch.setattr(calibration, "_noise", lambda _threads, **_options: NOISE)
    with pytest.raises(LayoutselError, match="expected at least 4"):
        calibrate(threads=2, units=["cpu"], limit_s=0.0)
