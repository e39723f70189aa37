// Runs the stages of a multi-exit network until an exit is sure, in one call from Python.
#ifndef LAYOUTSEL_ONEDNN_EXIT_CHAIN_H_
#define LAYOUTSEL_ONEDNN_EXIT_CHAIN_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

namespace layoutsel {

namespace ffi = tvm::ffi;

// Makes a function of a chain of stages: see ChainParts. tests[i] holds, for each exit that is
// complete after stage i, its number, the slots of its values, score and class, and the address
// that its values are copied to.
//
// The function takes the address of the thresholds, a double for each exit, and the inputs, which
// have the shapes and types of `inputs`. It computes on `threads` threads, stops at the first exit
// whose score is at least its threshold, or at the last one, and returns true. A score or threshold
// that is not a number does not stop it earlier. The answer, an ExitOutcome, lies at the address
// `outcome`. It returns false if it does not take these inputs.
ffi::Function ExitChain(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Function> recorded,
                        ffi::Array<ffi::Any> weights, ffi::Array<ffi::Shape> reads,
                        ffi::Array<ffi::Shape> writes, ffi::Array<ffi::Shape> frees, int64_t slots,
                        ffi::Array<ffi::Shape> tests, ffi::Array<ffi::Tensor> inputs,
                        int64_t threads, int64_t outcome);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_CHAIN_H_
