"""Workers of compiled models on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutsel.device.cancellation import CancelToken
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.worker_jobs import StageFuture
from layoutsel.runtime.arrays import to_array, to_tensor
from layoutsel.runtime.binding import bind


class StageWorker(TensorWorker):
    """A worker with inputs and results as arrays by name."""

    def run(
        self, stage: str, inputs: Mapping[str, np.ndarray], token: CancelToken | None = None
    ) -> StageFuture:
        """Queue a run of a stage and return at once.

        Results of one stage are inputs of the next, without a copy.

        Parameters
        ----------
        stage
            Name of the stage; ``main`` for a model of one stage.
        inputs
            Arrays by the names of the stage's inputs; other entries are ignored.
        token
            Cancels the run between two sub-graphs, or before its start.

        Returns
        -------
        StageFuture
            Arrays by the names of the stage's outputs.

        Raises
        ------
        InputError
            If an input is missing, has another shape or element type, or holds an index out of
            range.
        LayoutselError
            If the model has no such stage.
        WorkerClosed
            If the worker is closed.
        RunTimeout
            If an overdue run still occupies the worker.
        """
        entry = self.entry(stage)
        wanted = {one.name: inputs[one.name] for one in entry.inputs if one.name in inputs}
        tensors = [to_tensor(value) for value in bind(entry.inputs, (), wanted)]
        names = [one.name for one in entry.outputs]

        def arrays(results: list[object]) -> dict[str, np.ndarray]:
            return dict(zip(names, map(to_array, results), strict=True))

        return self.start(stage, tensors, token, arrays)
