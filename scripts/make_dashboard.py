"""Make Grafana's dashboard of the figures in `dashboard_figures.py`.

scripts/make_dashboard.py deploy/grafana/dashboard.json

Needs grafana-foundation-sdk (extra `test`).  In Grafana: Dashboards, New, Import; it asks for the Prometheus to read.
"""

import sys
from pathlib import Path

from dashboard_figures import FOLDED, HOST, ROWS, Figure
from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

WIDTH, HEIGHT = 8, 8  # of 24 columns
DATASOURCE = DataSourceRef("prometheus", "${datasource}")


def dashboard_json() -> str:
    board = (
        boards.Dashboard("dasnet")
        .uid("dasnet")
        .tags(["dasnet"])
        .refresh("10s")
        .time("now-15m", "now")
        .timezone("browser")
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(boards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .annotation(
            boards.AnnotationQuery()
            .name("Alerts opened")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color("red")
            .expr(f"sum by (camera, severity) (increase(dasnet_alerts_total{{{HOST}}}[1m])) > 0")
        )
        .with_variable(_variable("instance", "Host", "label_values(dasnet_worker_up, instance)"))
        .with_variable(_variable("camera", "Camera", f"label_values(dasnet_camera_up{{{HOST}}}, camera)"))
    )
    for title, figures in ROWS.items():
        row = boards.Row(title)
        if title == FOLDED:  # a folded row holds its panels itself
            row.collapsed(True)
            for figure in figures:
                row.with_panel(_panel(figure))
        board.with_row(row)
        for figure in figures if title != FOLDED else ():
            board.with_panel(_panel(figure))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def _variable(name: str, label: str, query: str) -> boards.QueryVariable:
    return (
        boards.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def _panel(figure: Figure) -> Builder[Panel]:
    return {"heat map": _heat_map, "number": _number}.get(figure.kind, _lines)(figure)


def _number(figure: Figure) -> stat.Panel:
    assert figure.limits is not None
    orange, red = figure.limits
    steps = [Threshold(value, colour) for value, colour in ((None, "green"), (orange, "orange"), (red, "red"))]
    panel = (
        stat.Panel()
        .title(figure.title)
        .description(figure.about)
        .datasource(DATASOURCE)
        .unit(figure.unit)
        .span(WIDTH // 2)
        .height(HEIGHT // 2)
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
        .thresholds(boards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    )
    for legend, expression in figure.series:
        panel.with_target(prometheus.Dataquery().expr(expression).legend_format(legend).instant())
    return panel


def _lines(figure: Figure) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(figure.title)
        .description(figure.about)
        .datasource(DATASOURCE)
        .unit(figure.unit)
        .span(WIDTH)
        .height(HEIGHT)
    )
    if figure.lowest is not None:
        panel.min(figure.lowest)
    for index, (legend, expression) in enumerate(figure.series):
        panel.with_target(prometheus.Dataquery().ref_id(chr(65 + index)).expr(expression).legend_format(legend).range())
    if figure.kind == "stack":
        panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    dashes = DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]})
    unstacked = DynamicConfigValue("custom.stacking", {"mode": "none"})
    flat = DynamicConfigValue("custom.fillOpacity", 0)
    return panel.override_by_name("objective", [dashes, unstacked, flat])


def _heat_map(figure: Figure) -> heatmap.Panel:
    panel = heatmap.Panel().title(figure.title).description(figure.about).datasource(DATASOURCE)
    panel.span(WIDTH).height(HEIGHT).calculate(False).y_axis(heatmap.YAxisConfig().unit(figure.unit))
    for legend, expression in figure.series:
        query = prometheus.Dataquery().expr(expression).legend_format(legend).format(PromQueryFormat.HEATMAP).range()
        panel.with_target(query)
    return panel


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: make_dashboard.py FILE, as in deploy/grafana/dashboard.json", file=sys.stderr)
        sys.exit(2)
    Path(sys.argv[1]).write_text(dashboard_json())
