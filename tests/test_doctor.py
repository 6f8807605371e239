"""The doctor: every finding is true of this machine, and what is missing is said together with who misses it."""

import os
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hdam.platform import doctor
from hdam.platform.cli import app


def test_this_machine_has_what_is_essential(monkeypatch, tmp_path):
    monkeypatch.setenv("HDAM_RESULTS", str(tmp_path / "not" / "there" / "yet"))
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert {"Python", "torch", "device", "ray", "mlflow", "av", "pyarrow", "CPUs", "memory", "disk"} <= findings.keys()
    assert all(finding.is_good for finding in findings.values() if finding.is_essential)
    assert findings["Python"].found == ".".join(map(str, sys.version_info[:3]))
    assert str(tmp_path / "not" / "there" / "yet") in findings["disk"].found
    assert not (tmp_path / "not").exists(), "looking makes no folder"


def test_a_missing_library_is_told_with_the_commands_that_need_it():
    finding = doctor.check_library("no_such_library", lacking="hdam train needs it")
    assert not finding.is_good
    assert finding.is_essential
    assert "no_such_library" in finding.found
    assert finding.consequence.startswith("hdam train needs it; install")


def test_status_1_only_when_something_essential_is_missing(monkeypatch):
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
    monkeypatch.setattr(doctor, "LEAST_PYTHON", (99, 0))
    found = CliRunner().invoke(app, ["doctor"])
    assert found.exit_code == 1
    assert "Missing: Python." in found.stdout
    assert "99.0" in found.stdout


def test_little_of_anything_is_a_note(monkeypatch):
    for name in ("LEAST_CPUS", "LEAST_MEMORY_GIB", "LEAST_DISK_GIB", "LEAST_SHM_GIB"):
        monkeypatch.setattr(doctor, name, 1e9)
    checks = (doctor.check_cpus, doctor.check_memory, doctor.check_disk, doctor.check_shm)
    for finding in (check() for check in checks):
        assert not finding.is_good
        assert not finding.is_essential
        assert finding.consequence


def test_limits_of_a_container_count(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CGROUP_DIR", tmp_path)
    free, total = doctor.free_memory_gib()
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    assert doctor.usable_cpus() == 0.5
    assert doctor.free_memory_gib() == (0.5, 1.0)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert 1 <= doctor.usable_cpus() <= (os.cpu_count() or 1)
    assert doctor.free_memory_gib() == pytest.approx((free, total), rel=0.5)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width, capsys):
    doctor.show_findings(doctor.examine(), Console(width=width))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    for subject in ("Python", "torch", "VGG weights"):
        assert any(subject in line for line in lines)


def test_brackets_in_a_finding_are_no_markup(capsys):
    finding = doctor.Finding("disk", "at /data/[red]/run", False, True, "[/] is :smile: no markup")
    doctor.show_findings([finding], Console(width=120))
    shown = capsys.readouterr().out
    assert "missing disk at /data/[red]/run [/] is :smile: no markup" in " ".join(shown.split())
