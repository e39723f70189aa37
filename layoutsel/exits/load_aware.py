"""Multi-exit networks that adapt to the load, and check the accuracy that they promise."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from layoutsel.core.closing import Closing
from layoutsel.exits.arrangement import Arrangement
from layoutsel.exits.audit import ExitAudit
from layoutsel.exits.controller import Choice, PlanController
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.load_table import LoadTable
from layoutsel.exits.waiting import WaitingRequest, answer_singly
from layoutsel.runtime.compiled import CompiledModel


class LoadAwareModel(Closing):
    """A multi-exit network with an arrangement for every load; a context manager.

    The arrangement of a request is decided when it arrives. A share of the requests runs all exits
    to their end. Once they show that the accuracy promise is at risk, the trunk alone answers.

    Parameters
    ----------
    model
        The network, made with all arrangements of the table; it is closed with this object.
    table
        Arrangements by load.
    controller
        Chooses the arrangement; it samples the load while this object is open.
    audit
        Chooses the audited requests.
    """

    def __init__(
        self, model: ExitModel, table: LoadTable, controller: PlanController, audit: ExitAudit
    ) -> None:
        self.model = model
        """The network."""
        self.table = table
        """Arrangements by load."""
        self.controller = controller
        """Chooses the arrangement."""
        self.audit = audit
        """Chooses the audited requests, and tells what they show."""
        self._active = 0
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._open.callback(model.close)
        self._open.enter_context(controller)

    @property
    def exits(self) -> tuple[str, ...]:
        """Names of the exits."""
        return self.model.exits

    @property
    def compiled(self) -> CompiledModel:
        """Compiled model, divided into trunk and branches."""
        return self.model.compiled

    @property
    def places(self) -> int:
        """Number of requests in progress that keep all workers busy under any load."""
        return 1 + any(one.is_beside for one in self.table.arrangements)

    def __call__(self, /, *arguments: np.ndarray, **named: np.ndarray) -> ExitAnswer:
        """Answer a request with inputs by position or by name; errors as in :class:`ExitModel`."""
        return self.by(math.inf, arguments, named)

    def by(
        self,
        deadline_s: float,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
    ) -> ExitAnswer:
        """Answer a request by a deadline, as :meth:`ExitModel.by` does."""
        choice, arrangement = self._choose()
        if self._audits(arrangement):
            return self._audited(arrangement, arguments, named, deadline_s)
        with self._lock:
            others = self._active
            self._active += 1
        try:
            answer = self.model.on(arrangement, arguments, named, deadline_s)
        finally:
            with self._lock:
                self._active -= 1
        if not others:  # the time of a request that waited for others tells nothing
            self.controller.report(choice, answer.us)
        return answer

    def prepare_batches(self) -> int:
        """Prepare the code for several requests at once, as :meth:`ExitModel.prepare_batches`."""
        return self.model.prepare_batches()

    def count_at_once(self, waiting: int) -> int:
        """Number of requests to give to :meth:`answer_all` when so many wait."""
        return self.model.count_at_once(waiting, self._choose()[1])

    def answer_all(self, requests: Sequence[WaitingRequest]) -> None:
        """Answer requests, as :meth:`ExitModel.answer_all` does; audited ones run alone."""
        if len(requests) == 1:
            answer_singly(requests, lambda one: self.by(one.deadline_s, one.arguments, one.named))
            return
        _, arrangement = self._choose()
        audited: list[WaitingRequest] = []
        others: list[WaitingRequest] = []
        for request in requests:
            (audited if self._audits(arrangement) else others).append(request)
        self.model.answer_all(others, arrangement)
        answer_singly(
            audited,
            lambda one: self._audited(arrangement, one.arguments, one.named, one.deadline_s),
        )

    def _choose(self) -> tuple[Choice, Arrangement]:
        """Choice for the load, or the trunk alone once the accuracy promise is at risk."""
        choice = self.controller.choice
        if self.audit.is_at_risk:
            choice = choice._replace(chosen=choice.off)
        self.model.from_last = choice.from_last
        return choice, self.table.arrangements[choice.chosen]

    def _audits(self, arrangement: Arrangement) -> bool:
        """Decide whether a request on an arrangement is audited."""
        return any(arrangement.branches) and self.audit.draws()

    def _audited(
        self,
        arrangement: Arrangement,
        arguments: Sequence[np.ndarray],
        named: Mapping[str, np.ndarray],
        deadline_s: float,
    ) -> ExitAnswer:
        """Answer a request after all its exits have run, and pass them on to the audit."""
        answer, seen = self.model.audited(arrangement, arguments, named, deadline_s)
        if seen is not None:
            self.audit.add(seen)
        return answer

    def close(self) -> None:
        """End the workers and the thread that samples the load."""
        self._open.close()
