"""Memory limits of control groups, read from file trees of both versions."""

import pytest

from temporal_zoo._support import control_group

GIB = 2**30


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Writes files to a folder that replaces the root folder."""
    monkeypatch.setattr(control_group, "ROOT", tmp_path)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def group(folder, limit, used, stat="", version=2):
        names = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}[version]
        path = tmp_path / {2: "sys/fs/cgroup", 1: "sys/fs/cgroup/memory"}[version] / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, value in zip((*names, "memory.stat"), (limit, used, stat), strict=True):
            (path / name).write_text(f"{value}\n")

    write.group = group
    return write


def test_without_control_groups_there_is_no_limit(tree):
    assert (control_group.limit_bytes(), control_group.available_bytes()) == (None, None)


def test_files_in_the_cache_count_as_free(tree):
    tree(proc__self__cgroup="0::/")
    tree.group("", 8 * GIB, 7 * GIB, f"anon {GIB}\nfile {6 * GIB}\ninactive_file {5 * GIB}\nactive_file {GIB}")
    assert control_group.limit_bytes() == 8 * GIB
    assert control_group.available_bytes() == 6 * GIB


def test_the_limits_of_the_group_and_all_its_parents_count(tree):
    tree(proc__self__cgroup="0::/jobs/17")
    tree.group("jobs/17", 8 * GIB, GIB)
    assert (control_group.limit_bytes(), control_group.available_bytes()) == (8 * GIB, 7 * GIB)
    tree.group("jobs", 6 * GIB, 5 * GIB, f"inactive_file {GIB}")
    assert (control_group.limit_bytes(), control_group.available_bytes()) == (6 * GIB, 2 * GIB)
    tree.group("jobs/18", GIB, GIB)
    assert control_group.limit_bytes() == 6 * GIB


def test_no_limit_in_either_version(tree):
    tree(proc__self__cgroup="5:cpu,memory:/a\n0::/a")
    tree.group("a", "max", GIB)
    tree.group("a", 9223372036854771712, GIB, version=1)
    assert (control_group.limit_bytes(), control_group.available_bytes()) == (None, None)


def test_version_1_has_another_name_for_inactive_files(tree):
    tree(proc__self__cgroup="11:cpu:/b\n4:cpu,memory:/a\n0::/")
    tree.group("a", 4 * GIB, 3 * GIB, f"inactive_file 1\ntotal_inactive_file {GIB}", version=1)
    tree.group("b", GIB, GIB, version=1)
    assert (control_group.limit_bytes(), control_group.available_bytes()) == (4 * GIB, 2 * GIB)


@pytest.mark.parametrize("path", ["/docker/5f0c", "/../../elsewhere"])
def test_a_path_of_the_host_that_is_not_mounted_means_the_root_group(tree, path):
    tree(proc__self__cgroup=f"0::{path}")
    tree.group("", 2 * GIB, GIB)
    assert (control_group.limit_bytes(), control_group.available_bytes()) == (2 * GIB, GIB)


def test_without_proc_the_root_groups_are_read(tree):
    tree.group("", 3 * GIB, GIB, version=1)
    assert control_group.available_bytes() == 2 * GIB


@pytest.mark.parametrize(("limit", "used", "stat"), [(GIB, "", ""), (GIB, "?", "\n \nx"), (GIB, 2 * GIB, "")])
def test_files_without_numbers_raise_no_error(tree, limit, used, stat):
    tree(proc__self__cgroup="0::/\nnot a group\n")
    tree.group("", limit, used, stat)
    assert control_group.available_bytes() in (0, GIB)


def test_available_memory_is_never_above_the_limit(tree):
    tree(proc__self__cgroup="0::/")
    tree.group("", GIB, 1000, f"inactive_file {GIB}")
    assert control_group.available_bytes() == GIB


def test_the_bench_and_the_environment_use_the_limits(tree):
    from bench.sweep import host_memory
    from temporal_zoo._support.environment import machine

    tree(proc__self__cgroup="0::/")
    tree.group("", 10**6, 9 * 10**5, f"inactive_file {4 * 10**5}")
    assert host_memory.available() == 5 * 10**5
    assert machine()["memory_limit_bytes"] == 10**6
