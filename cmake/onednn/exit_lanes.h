// Answers requests to a multi-exit network whose branches run beside the trunk, on two threads.
#ifndef LAYOUTSEL_ONEDNN_EXIT_LANES_H_
#define LAYOUTSEL_ONEDNN_EXIT_LANES_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

namespace layoutsel {

namespace ffi = tvm::ffi;

// Makes functions that share two lanes of stages. The lane of the trunk waits for no other one, and
// runs on the thread that asks; the lane of the branches runs on a thread that serves.
//
// A lane is an array of: functions, recorded functions, weights, slots that the stages read, write
// and free (see ChainParts), number of slots; tests, by stage (see ExitChain); for each stage, its
// number in the model's order, and the number of stages of the trunk's lane that it waits for. The
// exits that run are given in order, and the last stage that each of them needs.
//
// Slots of the trunk's lane start with the inputs, which have the shapes and types of `inputs`. The
// first slots of the branches' lane are given by `sources`, slots of the trunk's lane.
//
// The trunk computes on one thread, on the cores `cores`, or on any if there are none. A thread of
// the branches that takes longer than `limit_s`, seconds, is overdue. Where other work has the core
// of that thread, it may end a request long after its answer. The next requests end as kBusy then
// if `has_other_way`, and wait for that thread otherwise.
//
// The functions are, in order:
// - answer(thresholds, is_ordered, inputs...) -> RequestEnd: see ExitVerdict; an ExitOutcome lies
// at
//   the address `outcome` then. One call at a time. Errors of the trunk's stages are raised.
// - serve(): runs the lane of the branches until the end. A thread of its own calls it once.
// - close(): ends the present request, and serve().
// - await_idle(seconds) -> whether the branches' thread has ended the last request by then.
// - error() -> text of the error on the branches' thread.
// - counts() -> sub-graphs that the last request began, and those of a whole one, of either lane;
//   and the time, nanoseconds, from its answer until either lane had stopped. Only while idle.
ffi::Array<ffi::Function> ExitLanes(ffi::Array<ffi::Any> trunk, ffi::Array<ffi::Any> branches,
                                    ffi::Shape exits, ffi::Shape ends, ffi::Shape sources,
                                    ffi::Array<ffi::Tensor> inputs, ffi::Shape cores,
                                    double limit_s, bool has_other_way, int64_t outcome);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_LANES_H_
