"""Workers of compiled models, on numpy's arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutsel.device.cancellation import CancelToken
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.worker_jobs import StageFuture
from layoutsel.runtime.arrays import to_array, to_tensor
from layoutsel.runtime.binding import bind


class StageWorker(TensorWorker):
    """A worker whose runs take and give arrays by name."""

    def run(
        self, stage: str, inputs: Mapping[str, np.ndarray], token: CancelToken | None = None
    ) -> StageFuture:
        """Run a stage after the runs before it; does not wait.

        Results of one stage are inputs of the next, and are not copied.

        Parameters
        ----------
        stage
            Its name, such as ``main`` for a model of one stage.
        inputs
            Arrays by the names in the stage's inputs; others are left out.
        token
            Stops the run between two sub-graphs, or before it begins.

        Returns
        -------
        future
            Arrays by the names in the stage's outputs.

        Raises
        ------
        InputError
            If an input is missing, of another shape or element type, or holds an index that is outside of its axis.
        LayoutselError
            If the model has no such stage.
        WorkerClosed
            If the worker was closed.
        RunTimeout
            If a run that took too long still goes on.
        """
        entry = self.entry(stage)
        wanted = {one.name: inputs[one.name] for one in entry.inputs if one.name in inputs}
        tensors = [to_tensor(value) for value in bind(entry.inputs, (), wanted)]
        names = [one.name for one in entry.outputs]

        def arrays(results: list[object]) -> dict[str, np.ndarray]:
            return dict(zip(names, map(to_array, results), strict=True))

        return self.start(stage, tensors, token, arrays)
