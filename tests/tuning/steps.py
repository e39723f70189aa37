"""Steps of a search that misbehave for tasks of certain names, in the process that proposes schedules."""

from __future__ import annotations

import os
import signal
import time

from layoutsel.tuning.propose import Proposal, SearchStep, propose

CHUNK = 64 << 20


def misbehave(step: SearchStep) -> tuple[Proposal, ...]:
    """Do what the task's name says, or propose schedules."""
    with (step.folder / "steps").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {len(step.trials)}\n")
    if step.name == "raises":
        raise RuntimeError("no schedule fits")
    if step.name == "hangs":
        time.sleep(3600)
    if step.name == "eats":
        kept = []
        while True:
            kept.append(b"x" * CHUNK)
    if step.name == "dies once" and step.trials and not (step.folder / "died").exists():
        (step.folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return propose(step)
