"""Commands that run, check and look after a site."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import __version__
from pipeline.cli.application import ConfigArgument, HostOption, app
from pipeline.errors import ConfigError, DasnetError

if TYPE_CHECKING:
    import threading

    from pipeline.config.console import Address
    from pipeline.runtime.control import Control


@app.command(epilog="Example: `dasnet run configs/demo.yaml`")
def run(config: ConfigArgument, host: HostOption = None) -> None:
    """Run the pipeline on the cameras of a site until stopped."""
    from pipeline.config.file import load
    from pipeline.diagnostics.preflight import check_cameras, check_machine
    from pipeline.runtime import logs
    from pipeline.runtime.supervisor import Supervisor

    loaded = load(config)
    check_machine(config, loaded, host)
    logs.configure(loaded.for_host(host))
    supervisor = Supervisor(
        config.absolute(), loaded, lambda read, names: check_cameras(config, read, host, names), host
    )
    raise typer.Exit(supervisor.run())


@app.command(name="reload", epilog="Example: `dasnet reload site.yaml`")
def reload_cameras(config: ConfigArgument) -> None:
    """Reload the configuration of the running program: its cameras and rules, without interrupting other cameras."""
    from pipeline.runtime.reload import request_reload

    for line in request_reload(config):
        print(line)


@app.command(epilog="Example: `dasnet check site.yaml`")
def check(
    config: ConfigArgument,
    host: HostOption = None,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Open every camera: codec, size, frame rates and an image, and where it looks if it turns; connect to "
            "TAK, SAPIENT and NATS.",
        ),
    ] = False,
) -> None:
    """Validate a configuration and summarise it, without starting the pipeline."""
    from pipeline.config.file import load
    from pipeline.diagnostics.doctor import describe
    from pipeline.diagnostics.preflight import check_machine

    loaded = load(config)
    check_machine(config, loaded, host, outputs=True)
    print(describe(config, loaded))
    if connect:
        from pipeline.diagnostics.camera_check import check_cameras
        from pipeline.diagnostics.nats_check import check_nats
        from pipeline.diagnostics.pose_check import check_poses
        from pipeline.diagnostics.sink_check import check_sinks

        own = loaded.for_host(host)
        is_edge_host = host is not None and host not in loaded.hosts
        here = [camera for camera in own.cameras if camera.host == (host if is_edge_host else None)]
        report, healthy = check_cameras(here, own.run_dir / "check")
        poses, told = check_poses(here)
        sinks, reached = check_sinks(own) if not is_edge_host else ([], True)
        servers, connected = check_nats(own)
        print("\n".join([report, *poses, *sinks, *servers]))
        raise typer.Exit(0 if healthy and told and reached and connected else 1)


@app.command(epilog="Example: `dasnet assess site.yaml --hours 15`")
def assess(
    config: ConfigArgument,
    hours: Annotated[
        float,
        typer.Option(min=0, help="Hours of observation per camera; 0: only rewrite the report, with new verdicts."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Output folder; default: `assess` in the run folder.")
    ] = None,
    target: Annotated[
        float, typer.Option(min=0.001, metavar="PER_HOUR", help="False alarms an hour to be claimed, per camera.")
    ] = 0.2,
    encounters: Annotated[float, typer.Option(min=0.1, help="Seeded encounters an hour, per camera.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the encounters.")] = 0,
) -> None:
    """Assess the cameras of a site in shadow mode: false alarms an hour, probability of detection, calibration.

    Nothing is sent or alerted. Ctrl-C ends early, with a report of what was seen.
    """
    from pipeline.assess.options import AssessOptions
    from pipeline.assess.run import run_assess

    raise typer.Exit(run_assess(config, AssessOptions(hours, out, seed, encounters, target)))


@app.command(epilog="Example: `dasnet status site.yaml`")
def status(config: ConfigArgument, host: HostOption = None) -> None:
    """Show live camera status; print it once where output is not a terminal. Exit code 0: all cameras are up."""
    from pipeline.config.file import load
    from pipeline.diagnostics.status import show

    raise typer.Exit(show(load(config).for_host(host)))


@app.command(epilog="Example: `dasnet doctor`")
def doctor() -> None:
    """Check the installation and this machine: packages, devices, codecs, memory, disk, clock, limits."""
    from pipeline.diagnostics.doctor import examine

    report, healthy = examine(Path.cwd())
    print(report)
    raise typer.Exit(0 if healthy else 1)


@app.command(epilog="Example: `dasnet support-bundle --out support.zip site.yaml`")
def support_bundle(
    config: ConfigArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The zip file to write.")],
) -> None:
    """Collect diagnostic information, without secrets and images, in one zip file to share."""
    from pipeline.config.file import load
    from pipeline.diagnostics.support_bundle import write

    print(write(config, load(config), out))


@app.command(epilog="Example: `dasnet worker capture site.yaml --camera north`")
def worker(
    role: Annotated[str, typer.Argument(help="capture, segmentation, tracking or console.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The site's YAML file; -: from the supervisor.")],
    camera: Annotated[str | None, typer.Option(help="Id of the camera; capture only.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve this worker's metrics on this port; `run` serves those of all."),
    ] = None,
) -> None:
    """Run a single worker; `dasnet run` starts all of them."""
    import structlog

    from model.errors import ModelError
    from pipeline.config.console import Address
    from pipeline.config.file import load
    from pipeline.runtime.control import FROM_SUPERVISOR, Control
    from pipeline.runtime.process import start_worker

    control = Control.inherited() if str(config) == FROM_SUPERVISOR else Control(load(config))
    loaded = control.config
    served = None if metrics_port is None else Address(host=loaded.metrics.host, port=metrics_port)
    loaded.run_dir.mkdir(parents=True, exist_ok=True)
    os.chdir(loaded.run_dir)
    stop = start_worker(f"{role}-{camera}" if camera else role, control)
    try:
        _run_worker(role, control, camera, stop, served)
    except (DasnetError, ModelError) as error:
        structlog.get_logger().error("worker failed", reason=str(error))
        raise typer.Exit(error.exit_code) from None


def _run_worker(
    role: str, control: "Control", camera: str | None, stop: "threading.Event", served: "Address | None"
) -> None:
    if role == "capture":
        from pipeline.capture.worker import run as run_capture

        if camera is None:
            raise ConfigError("worker capture: --camera is required; must be the id of a camera")
        run_capture(control, control.config.camera(camera), stop, served)
    elif role == "segmentation":
        from pipeline.segmentation.worker import run as run_segmentation

        run_segmentation(control, stop, served)
    elif role == "tracking":
        from pipeline.tracking.worker import run as run_tracking

        run_tracking(control, stop, served)
    elif role == "console":
        from pipeline.console.worker import run as run_console

        run_console(control, stop, served)
    else:
        raise ConfigError(f"worker {role!r}; must be one of capture, segmentation, tracking, console")


@app.command(epilog="Example: `dasnet password console.password`")
def password(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, readable by you only.")],
) -> None:
    """Write the console's password file; prompts twice, or reads one line from a pipe."""
    from pipeline.console.password import ask, write_password_file

    write_password_file(file, ask())
    print(f"{file}: written; set console.password_file in the configuration to it")


@app.command(epilog="Example: `dasnet keys keys edge1 edge2`")
def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the keys; created if needed.")],
    hosts: Annotated[
        list[str] | None, typer.Argument(metavar="[HOST...]", help="Edge hosts, as in the key `host` of cameras.")
    ] = None,
) -> None:
    """Generate the key that signs evidence, and the CURVE keys of hosts; existing keys are kept.

    Prints the public key of evidence; `dasnet keys` with the run folder shows the one that was made there.
    """
    from pipeline.evidence.signing import NAME, PUBLIC_SUFFIX, SECRET_SUFFIX, load_key, make_key, public_hex
    from pipeline.transport.keys import SERVER, make_keys

    evidence = folder / f"{NAME}{SECRET_SUFFIX}"
    made = [evidence] if make_key(evidence) else []
    made += make_keys(folder, hosts) if hosts else []
    for path in made:
        print(f"{path}: written")
    public = evidence.with_suffix(PUBLIC_SUFFIX)
    print(f"{public}: {public_hex(load_key(evidence).public_key())}")
    print(f"evidence.key: {evidence} lets this site sign with it; keep {public.name} where nobody can change it")
    if hosts:
        print(
            f"the inference host needs {folder}/{SERVER}.key_secret and {folder}/hosts/*.key; "
            f"each edge host {folder}/{SERVER}.key and its own {folder}/hosts/NAME.key_secret"
        )


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)
