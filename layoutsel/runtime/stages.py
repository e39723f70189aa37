"""Workers of compiled models on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layoutsel.device.cancellation import CancelToken
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.worker_jobs import StageFuture
from layoutsel.runtime.arrays import to_array, to_tensor
from layoutsel.runtime.binding import bind


class StageWorker(TensorWorker):
    """A worker with inputs and results as arrays by name."""

    def run(
        self,
        stage: str | Sequence[str],
        inputs: Mapping[str, np.ndarray],
        token: CancelToken | None = None,
    ) -> StageFuture:
        """Queue a run of a stage and return at once.

        Results of one stage are inputs of the next, without a copy.

        Parameters
        ----------
        stage
            Name of the stage, ``main`` for a model of one stage; or names of several stages in the
            model's order, which run as one.
        inputs
            Arrays by the names of the stages' inputs; other entries are ignored.
        token
            Cancels the run between two sub-graphs, or before its start.

        Returns
        -------
        StageFuture
            Arrays by the names of the stages' outputs.

        Raises
        ------
        InputError
            If an input is missing, has another shape or element type, or holds an index out of
            range.
        LayoutselError
            If the model has no such stages.
        WorkerClosed
            If the worker is closed.
        RunTimeout
            If an overdue run still occupies the worker.
        """
        chain = self.chain(stage)
        wanted = {one.name: inputs[one.name] for one in chain.inputs if one.name in inputs}
        tensors = [to_tensor(value) for value in bind(chain.inputs, (), wanted)]
        names = [one.name for one in chain.outputs]

        def arrays(results: list[object]) -> dict[str, np.ndarray]:
            return dict(zip(names, map(to_array, results), strict=True))

        return self.start(stage, tensors, token, arrays)
