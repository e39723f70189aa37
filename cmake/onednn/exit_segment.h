// Runs the stages of a multi-exit network from one exit to the next, on a batch of samples.
#ifndef LAYOUTSEL_ONEDNN_EXIT_SEGMENT_H_
#define LAYOUTSEL_ONEDNN_EXIT_SEGMENT_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

namespace layoutsel {

namespace ffi = tvm::ffi;

// Makes a function of a chain of stages, see ChainParts, that returns the slots `kept`. Every three
// of `copies` are a slot, the address that its tensor is copied to after a run, and the number of
// bytes there. The function computes on `threads` threads.
ffi::Function ExitSegment(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Function> recorded,
                          ffi::Array<ffi::Any> weights, ffi::Array<ffi::Shape> reads,
                          ffi::Array<ffi::Shape> writes, ffi::Array<ffi::Shape> frees,
                          int64_t slots, ffi::Shape kept, ffi::Shape copies, int64_t threads);

// Copies some rows of each source to the first rows of its target. The tensors are row-major, and
// agree but for the number of their rows.
void CopyRows(ffi::Array<ffi::Tensor> sources, ffi::Array<ffi::Tensor> targets, ffi::Shape rows);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_SEGMENT_H_
