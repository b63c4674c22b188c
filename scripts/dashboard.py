"""`make dashboard`: run dasnet and a Prometheus server that scrapes it.

scripts/dashboard.py configs/demo.yaml

In: a site's configuration.  Out: both running, their addresses on stdout, until Ctrl-C or until dasnet ends.
Prometheus listens on loopback alone, with the rules of deploy/prometheus; its data and log lie in the run folder.
"""

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import yaml

from pipeline.config.file import load
from pipeline.errors import ConfigError, DasnetError

DEPLOY = Path(__file__).parents[1] / "deploy" / "prometheus"
SCRAPE_INTERVAL = "1s"  # short: one host, for interactive use
FIRST_GRAPHS = (
    "histogram_quantile(0.95, sum by (stage, le) (rate(dasnet_stage_latency_seconds_bucket[1m])))",
    "histogram_quantile(0.95, sum by (camera, le) (rate(dasnet_capture_to_track_seconds_bucket[1m])))",
)


def main(config: Path) -> int:
    """Run both until dasnet ends; return its exit code."""
    program = shutil.which("prometheus")
    if program is None:
        raise ConfigError("prometheus is not installed; on Debian: apt-get install --no-install-recommends prometheus")
    folder = load(config).run_dir / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    dasnet = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: dasnet.terminate())
    prometheus = None
    assert dasnet.stdout is not None
    for line in dasnet.stdout:  # ends with its last process
        print(line, end="", flush=True)
        if found := re.fullmatch(r"metrics: http://(\S+)/metrics\n", line):
            port = _free_port()
            prometheus = _prometheus(program, folder, found[1], port)
            graphs = "&".join(
                f"g{index}.expr={quote(expression)}&g{index}.tab=0&g{index}.range_input=15m"
                for index, expression in enumerate(FIRST_GRAPHS)
            )
            print(f"prometheus: http://127.0.0.1:{port}/graph?{graphs}", flush=True)
    if prometheus is not None:
        prometheus.terminate()
        prometheus.wait()
    return dasnet.wait()


def _prometheus(program: str, folder: Path, target: str, port: int) -> "subprocess.Popen[bytes]":
    """Start Prometheus with the configuration of deploy/prometheus for this target, without an Alertmanager."""
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL}
    settings["rule_files"] = [str(DEPLOY / name) for name in settings["rule_files"]]
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    del settings["alerting"]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(settings))
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("w") as log:
        return subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: dashboard.py CONFIG, as in configs/demo.yaml", file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(main(Path(sys.argv[1])))
    except DasnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
