"""Algorithm ``tuned``: schedules that MetaSchedule found."""

from __future__ import annotations

from tvm_passes.algorithms.base import Algorithm, CandidateContext


def _layouts(context: CandidateContext) -> tuple[str, ...]:
    """Every layout of f32, where a tuning database is at hand."""
    from tvm_passes.tuned import current_database

    has_records = context.precision == "f32" and current_database() is not None
    return context.layouts if has_records else ()


ALGORITHM = Algorithm(
    name="tuned",
    about="the schedule of a tuning record, where the database at hand has one for the sub-graph",
    units=("cpu", "cuda", "opencl"),
    layouts=_layouts,
    recorded=True,
    family="cpu.tuned",
    code=("tvm_passes.tuned:tuned_code", "tvm_passes.tunable:tunable", "tvm_passes.legalize:*"),
    rank=20,
)
