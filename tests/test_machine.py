"""What a machine has, also where it lacks what most have."""

import os
from pathlib import Path

from o2ojax import machine


def test_a_user_without_a_home_has_a_folder_for_what_is_compiled(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert machine.cache_folder().name == f"o2ojax-{os.getuid()}"


def test_memory_is_that_of_the_container_where_there_is_one(tmp_path, monkeypatch):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "max", tmp_path / "none"))
    (tmp_path / "max").write_text("max\n")
    assert machine.memory() == whole
    (tmp_path / "max").write_text("1000000\n")
    assert machine.memory() == 1_000_000
