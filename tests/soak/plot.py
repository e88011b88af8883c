"""The run as pictures and as a page."""

from __future__ import annotations

import collections.abc
import pathlib
import platform
from xml.etree import ElementTree

import pygal
import pygal.style

from tests.soak import measures

WIDTH, HEIGHT, COLUMNS = 460, 260, 2
STYLE = pygal.style.CleanStyle(
    background="#ffffff", plot_background="#ffffff", title_font_size=18, font_family="sans-serif"
)
SVG = "http://www.w3.org/2000/svg"


def draw(
    charts: collections.abc.Mapping[str, collections.abc.Sequence[str]],
    samples: collections.abc.Sequence[measures.Sample],
) -> str:
    """One SVG with a chart for each title, over the minutes of the run.

    Args:
        charts: title → the measures in it.
        samples: all of them.
    """
    rows = -(-len(charts) // COLUMNS)
    top = ElementTree.Element(
        "svg",
        {"xmlns": SVG, "viewBox": f"0 0 {WIDTH * COLUMNS} {HEIGHT * rows}"},
    )
    for index, (title, names) in enumerate(charts.items()):
        chart = pygal.XY(
            width=WIDTH,
            height=HEIGHT,
            title=title,
            style=STYLE,
            js=(),
            show_dots=False,
            include_x_axis=True,
            legend_at_bottom=True,
            legend_at_bottom_columns=3,
            truncate_legend=-1,
            legend_font_size=11,
            margin=6,
            x_labels_major_count=4,
            show_minor_x_labels=False,
            max_scale=6,
        )
        for name in names:
            points = [(round(each.minutes, 2), round(each.values[name], 1)) for each in samples]
            chart.add(name.partition(" (")[0] if len(names) > 1 else name, points)
        drawn = chart.render_tree()
        drawn.set("x", str(index % COLUMNS * WIDTH))
        drawn.set("y", str(index // COLUMNS * HEIGHT))
        drawn.set("width", str(WIDTH))
        drawn.set("height", str(HEIGHT))
        top.append(drawn)
    return ElementTree.tostring(top, encoding="unicode") + "\n"


PAGE = """\
# A soak of {minutes:.0f} minutes

`make soak` (`SOAK_MINUTES=30`) runs one cluster and keeps it busy: every 20 seconds Deployments are scaled and
rolled out, a Job runs, a pod keeps failing and one has no image, ConfigMaps are written, people exec, read
logs and list, a pod writes 80 KB of log a second; now and then a namespace comes and goes. Every ten seconds everything
that could grow is measured. In the end all of it is deleted, and what is left is compared with the beginning.
`tests/soak/` is the code, `build/soak.csv` has the samples.

![what was measured, over the minutes](soak.svg)

*Growth* is the median of the slopes between all pairs of samples (Theil-Sen), for an hour, after a
warm-up of a third of the run. *Allowed* is the test's bound. *Left* is what there is more in the end, when everything
is deleted and has settled, than before. Kubernetes keeps events for an hour: what they take in etcd (their number
times 2.5 KB, 3 KB of memory) is not counted as growth.

What grows and is bounded, by heap profiles of such a run (each after a forced collection):

- kube-apiserver: what lives in its heap does not grow (134 MB after 8 minutes, then every four 131, 135, 134, 132 and
  141), nor does the heap that is in use (252 to 262 MB). Its process creeps by 10 to 40 MB an hour, since a heap stays as
  wide as it was in its busiest moment, until it is idle. A run of 50 minutes saw 327 MB after 12, 335 after 27 and 351
  after 48.
- kubelet: 12 MB an hour. 4 MB more lived in its heap after half an hour; the largest part of them is its memory of the
  events that it told, to count repeated ones: 4,096 entries at most.
- Dead containers go once a minute. More than 1,500 are made in an hour (nine in a round, by the Job and the failing pods alone): that none is left tells more than the slope.
- etcd: what was replaced or deleted is dropped five to ten minutes later; its file keeps its size.
- etcd's log: five files of 64 MB at most, the third after some 40 minutes of this.

| measure | unit | before | median | growth an hour | allowed | left | allowed |
|---|---|--:|--:|--:|--:|--:|--:|
{rows}

{machine}.
"""


def write_page(
    file: pathlib.Path,
    verdicts: collections.abc.Sequence[measures.Verdict],
    *,
    minutes: float,
) -> None:
    """The page for docs/, with the figures of one run."""
    rows = []
    for each in verdicts:
        measure = each.measure
        allowed = max(measure.growth * each.median, measure.slack)
        figures = (each.before, each.median, each.slope, allowed, each.after - each.before)
        cells = " | ".join(f"{figure:.1f}" for figure in figures)
        rows.append(f"| {measure.name} | {measure.unit} | {cells} | {measure.left:g} |")
    machine = f"Linux {platform.release()}, {_processors()} processors"
    file.write_text(PAGE.format(minutes=minutes, rows="\n".join(rows), machine=machine))


def _processors() -> int:
    return pathlib.Path("/proc/cpuinfo").read_text().count("processor\t:")
