"""Retrain, judge, publish: `python -m flows.retrain`.

The work happens in the run's own clone, on a snapshot of the tree as it stands; what it does is dvc.yaml's,
stage by stage. The champion changes at the very end or not at all.
"""

from __future__ import annotations

from pathlib import Path

from prefect import State, flow

from flows import tasks
from flows.outcome import Outcome, tell


@flow(name="retrain", log_prints=True, validate_parameters=True)
def retrain(repo: str = ".", force: bool = False) -> State[Outcome]:
    """Bring the champion up to date with data, params and code.

    Args:
        repo: a folder inside the repository.
        force: train again even if these inputs were judged before, past DVC's cache.
    """
    workspace, judged, champion = tasks.look(Path(repo), force)
    if judged is not None:
        return tell(Outcome.unchanged(workspace, judged, champion))
    with tasks.recorded(workspace) as outcome:
        tasks.prepare_workspace(workspace)
        for stage in tasks.list_stages(workspace):
            tasks.run_stage.with_options(name=stage, task_run_name=stage)(workspace, stage, force)
        judgement = tasks.judge(workspace, outcome)
        tasks.publish(workspace, judgement, outcome)
    return tell(outcome)


if __name__ == "__main__":
    tasks.main(retrain)
