"""Clips in; each replayed by a Ray task, again on another node where that failed; the failures out."""

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, NamedTuple

from pipeline import __version__
from pipeline.bulk.clip import Clip
from pipeline.bulk.cluster import node_names, nodes_with
from pipeline.errors import DasnetError

TRIES = 2  # of a clip that a node reports as failed
LOST_TRIES = 4  # of one whose process or node disappeared
TASKS_PER_SLOT = 2  # submitted: one runs, one waits, and an autoscaler sees that there is more
POLL_S = 5.0  # nodes that come and go are noticed as often


@dataclass(frozen=True)
class Finished:
    """The end of a clip; `error` says why its last try failed, and where."""

    clip: Clip
    error: str | None = None


@dataclass(frozen=True)
class _Job:
    clip: Clip
    tries: int = 0
    failed_on: frozenset[str] = frozenset()


class _Answer(NamedTuple):
    node: str
    found: str  # the dasnet of that node
    error: str | None


@dataclass
class Schedule:
    """The tasks of a bulk replay on a connected cluster.

    Args:
        ray: the module.
        resource: of which each task takes one: `CPU` or `GPU`.
        warn: called with a text about a node or a try.
    """

    ray: ModuleType
    resource: str
    warn: Callable[[str], None]
    _refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._task = self.ray.remote(_by_value())

    def run(self, clips: Sequence[Clip]) -> Iterator[Finished]:
        """Replay all clips and yield each when nothing is left to try.  Raise DasnetError where no node can."""
        waiting = deque(map(_Job, clips))
        running: dict[Any, _Job] = {}
        while waiting or running:
            if not nodes_with(self.ray, self.resource) - self._refused:
                wanted = f"must have a {self.resource} and dasnet {__version__}"
                raise DasnetError(f"no node of the cluster can be used: {wanted}")
            slots = int(self.ray.cluster_resources().get(self.resource, 1))
            while waiting and len(running) < TASKS_PER_SLOT * slots:
                job = waiting.popleft()
                running[self._submit(job)] = job
            ready, _ = self.ray.wait(list(running), num_returns=1, timeout=POLL_S)
            for reference in ready:
                outcome = self._outcome(reference, running.pop(reference))
                if isinstance(outcome, Finished):
                    yield outcome
                else:
                    waiting.append(outcome)

    def _submit(self, job: _Job) -> Any:
        where: dict[str, Any] = {"label_selector": _not_on(self._refused | job.failed_on)}
        if job.failed_on:  # the same node again, where there is no other
            where["fallback_strategy"] = [{"label_selector": _not_on(self._refused)}]
        task = self._task.options(
            name=f"replay {job.clip.name}",
            num_cpus=1,
            num_gpus=int(self.resource == "GPU"),
            max_retries=0,  # tries are counted here
            **where,
        )
        return task.remote(__version__, pickle.dumps(job.clip))

    def _outcome(self, reference: Any, job: _Job) -> Finished | _Job:
        try:
            answer = _Answer(*self.ray.get(reference))
        except self.ray.exceptions.RayError as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[-1]
            return self._again(replace(job, tries=job.tries + 1), text, LOST_TRIES)
        where = node_names(self.ray).get(answer.node, answer.node)
        if answer.found != __version__:
            if answer.node not in self._refused:
                self._refused.add(answer.node)
                self.warn(f"node {where}: {answer.found or 'no dasnet'}; must be dasnet {__version__}: not used")
            return job
        if answer.error is None:
            return Finished(job.clip)
        tried = replace(job, tries=job.tries + 1, failed_on=job.failed_on | {answer.node})
        return self._again(tried, f"{answer.error} (node {where})", TRIES)

    def _again(self, job: _Job, error: str, limit: int) -> Finished | _Job:
        if job.tries >= limit:
            return Finished(job.clip, error)
        self.warn(f"{job.clip.name}: tried again: {error}")
        return job


def _not_on(nodes: set[str] | frozenset[str]) -> dict[str, str]:
    return {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"} if nodes else {}


def _by_value() -> Callable[[str, bytes], tuple[str, str, str | None]]:
    """Return the task.  As a nested function Ray sends its code: nodes without this package can still answer."""

    def task(version: str, job: bytes) -> tuple[str, str, str | None]:
        import os

        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch is imported, see the command line
        import ray

        node = ray.get_runtime_context().get_node_id()
        try:
            from pipeline import __version__ as found
        except ImportError:
            found = ""
        if found != version:
            return node, found, None
        from pipeline.bulk.clip import attempt

        return node, found, attempt(job)

    return task
