"""`make bench-addons`, but for what needs an engine: medians, memory, and the table in its page."""

from __future__ import annotations

import pathlib

import pytest

from tests.bench import addons, cgroups

SAMPLES = {
    "metrics": [
        addons.Cost(seconds=12.0, memory=20 * 2**20, size=50_400_000),
        addons.Cost(seconds=13.0, memory=30 * 2**20, size=50_400_000),
        addons.Cost(seconds=30.0, memory=22 * 2**20, size=50_400_000),
    ],
    "loadbalancer": [addons.Cost(seconds=0.26, memory=2**20, size=0)],
}


def write_process(proc: pathlib.Path, pid: int, *words: str, kib: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_text("\0".join(words) + "\0")
    (proc / str(pid) / "smaps_rollup").write_text(
        f"00400000-7ffc [rollup]\nRss:     9999 kB\nPss:     999 kB\nPss_Anon:     {kib} kB\n"
    )


def test_the_table_has_medians() -> None:
    assert addons.table(addons.summarize(SAMPLES)) == (
        "| add-on | usable after | memory | image |\n"
        "|---|---|---|---|\n"
        "| `metrics` | 13.0 s | 22 MiB | 50 MB |\n"
        "| `loadbalancer` | 0.3 s | 1 MiB | none |\n"
    )


def test_the_page_gets_another_table_and_nothing_else() -> None:
    page = "# A\n<!-- costs -->\n| old \\1 |\n|---|\n<!-- /costs -->\nafter\n"
    made = addons.replace(page, "| new \\1 |\n")
    assert made == "# A\n<!-- costs -->\n| new \\1 |\n<!-- /costs -->\nafter\n"
    assert addons.replace(made, "| new \\1 |\n") == made


def test_the_page_of_the_repository_has_the_marks() -> None:
    page = addons.PAGE.read_text()
    assert addons.replace(page, "") != addons.replace(page, "| a table |\n")


def test_a_page_without_the_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="<!-- costs -->"):
        addons.replace("# A\n", "| new |\n")


def test_memory_is_what_is_new_and_what_the_sidecar_has_more(tmp_path: pathlib.Path) -> None:
    cgroup, proc = tmp_path / "cgroup", tmp_path / "proc"
    cgroup.mkdir()
    proc.mkdir()
    usage = cgroups.Usage(cgroup, cgroup)

    def look(*pids: int) -> dict[int, addons.Process]:
        (cgroup / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return addons.list_memory(usage, proc)

    write_process(proc, 7, "python3", "-m", "p8s_supervisor.sidecar", kib=1000)
    write_process(proc, 8, "kube-apiserver", kib=50_000)
    write_process(proc, 11, "/usr/local/bin/kubelet", kib=40_000)
    before = look(7, 8, 9, 11)  # 9 has ended since its id was read
    for pid in (7, 8):
        for file in (proc / str(pid)).iterdir():
            file.unlink()
        (proc / str(pid)).rmdir()
    write_process(proc, 7, "python3", "-m", "p8s_supervisor.sidecar", kib=1100)
    write_process(proc, 8, "kube-apiserver", kib=90_000)
    write_process(proc, 10, "/usr/local/bin/metrics-server", kib=20_000)
    write_process(proc, 12, "/usr/local/bin/kubelet", kib=45_000)  # started again
    assert addons.subtract(look(7, 8, 10, 12), before) == 20_100 * 1024
