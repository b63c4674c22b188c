"""A hyper-parameter sweep on a Ray cluster: Ray Tune draws the values, ASHA stops the trials that lag behind.

In: a training configuration and a `Sweep`.  Out, in the folder: a run's folder for each trial in `trials/`, `sweep.csv`
with a row for each, the best first, and Ray Tune's own state in `tune/`, from which `--resume` continues.
"""

import csv
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, DasnetError
from training.config import load_config
from training.on_ray import MAX_FAILURES, arrive, cluster, here, reason_of, uses_gpus
from training.sweep import Range, Sweep, changes_of, check_space
from training.train import check_columns, train

NAME = "tune"
MAX_STEPS = 10**9  # a trial ends by itself


def sweep_on_ray(
    address: str, sweep: Sweep, path: Path, changes: Sequence[str], folder: Path, resume: bool
) -> list[str]:
    """Run the trials; return the changes of the configuration, as for --set, of the best one.

    Args:
        address: HOST:PORT of the cluster's head, or `auto`.
        sweep: what to try.
        path: of the training configuration.
        changes: to it, of all trials.
        folder: on a file system that all nodes share.
        resume: the sweep in it.

    Raises:
        ConfigError: Ray is not installed, or a configuration is wrong.
        DasnetError: No cluster at that address, or no trial succeeded.
    """
    config = [load_config(path, changes), *check_space(sweep, path, changes)][0]
    if sweep.metric not in (known := check_columns(config)):
        raise ConfigError(f"metric = {sweep.metric!r}; must be one of {', '.join(known)}")
    folder = folder.absolute()
    with cluster(address, "tune") as ray:
        from ray import tune

        state = str(folder / NAME)
        is_begun = tune.Tuner.can_restore(state)
        if is_begun and not resume:
            raise ConfigError(f"--out {folder}: holds a sweep; expected another folder, or --resume")
        run_trial = partial(_trial, here(), str(path.absolute()), list(changes), str(folder))
        resources = {"cpu": config.threads, "gpu": float(uses_gpus(ray, config))}
        trainable = tune.with_resources(run_trial, resources)
        if is_begun:
            tuner = tune.Tuner.restore(state, trainable, resume_unfinished=True, resume_errored=True)
        else:
            tuner = _tuner(tune, sweep, trainable, folder)
        results = tuner.fit()
        return _written(folder, sweep, [results[number] for number in range(len(results))])


def _tuner(tune: Any, sweep: Sweep, trainable: Any, folder: Path) -> Any:
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    stopping = ASHAScheduler(
        time_attr="step",
        grace_period=sweep.grace_steps,
        reduction_factor=sweep.reduction,
        max_t=max(MAX_STEPS, sweep.grace_steps),
    )
    return tune.Tuner(
        trainable,
        param_space={key: _domain(tune, values) for key, values in sweep.space.items()},
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            num_samples=sweep.trials,
            scheduler=stopping,
            search_alg=BasicVariantGenerator(random_state=sweep.seed),
        ),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=str(folder),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_progress(tune, sweep.metric)],
            verbose=0,
        ),
    )


def _progress(tune: Any, metric: str) -> Any:
    """Return what prints a line after each check of each trial."""

    class Progress(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
            print(f"trial {trial.trial_id} step {result['step']} {metric} {result[metric]:.4g}", flush=True)

        def on_trial_error(self, *, trial: Any, **_: Any) -> None:
            print(f"trial {trial.trial_id} failed", flush=True)

    return Progress()


def _domain(tune: Any, values: Range) -> Any:
    if values.uniform is not None:
        return tune.uniform(*values.uniform)
    return tune.loguniform(*values.log) if values.log is not None else tune.choice(values.choice)


def _trial(where: tuple[str, str], path: str, changes: Sequence[str], folder: str, values: dict[str, Any]) -> None:
    """Train with these values, and report each check; Tune ends the process of a trial that it stops."""
    from ray import tune

    arrive(where)
    # The metric is of the network: its judge is not trained.
    config = load_config(path, [*changes, *changes_of(values)]).model_copy(update={"judge": None})
    name = tune.get_context().get_trial_id()
    own = Path(folder) / "trials" / name
    train(
        config,
        own,
        resume=(own / "state.pt").exists(),
        on_check=lambda step, metrics: tune.report({**metrics, "step": step}),
    )


def _written(folder: Path, sweep: Sweep, results: Sequence[Any]) -> list[str]:
    """Write a row for each trial, the best first; return the values of the best."""
    good = [each for each in results if math.isfinite((each.metrics or {}).get(sweep.metric, math.nan))]
    bad = [each for each in results if all(each is not one for one in good)]
    good.sort(key=lambda each: each.metrics[sweep.metric], reverse=sweep.mode == "max")
    with (folder / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["trial", "step", sweep.metric, *sweep.space, "error"])
        for each in [*good, *bad]:
            told = each.metrics or {}
            error = reason_of(each.error) if each.error is not None else ""
            values = (each.config.get(key, "") for key in sweep.space)
            rows.writerow([told.get("trial_id", ""), told.get("step", ""), told.get(sweep.metric, ""), *values, error])
    if not good:
        errors = [reason_of(each.error) for each in bad if each.error is not None]
        raise DasnetError(f"none of {len(bad)} trials was successful: {errors[0] if errors else 'no check'}")
    best = good[0]
    print(f"best of {len(results)}: trial {best.metrics['trial_id']}, {sweep.metric} {best.metrics[sweep.metric]:.4g}")
    return changes_of({key: best.config[key] for key in sweep.space})
