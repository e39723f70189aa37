// Runs the stages of a multi-exit network until an exit is sure, in one call from Python.
#ifndef LAYOUTSEL_ONEDNN_EXIT_CHAIN_H_
#define LAYOUTSEL_ONEDNN_EXIT_CHAIN_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/function.h>

namespace layoutsel {

namespace ffi = tvm::ffi;

// Makes a function of a chain of stages. Tensors have numbers, the slots; the inputs come first.
//
// Stage i calls functions[i] on the slots reads[i] and on weights[i], stores its results in
// writes[i] and frees the slots frees[i]. tests[i] holds, for each exit that is then complete,
// its number and the slots of its values, score and class.
//
// The function takes the address of the thresholds, a double for each exit, and the inputs. It
// stops at the first exit whose score is at least its threshold, or at the last one. A score or
// threshold that is not a number does not stop it earlier. It returns the exit's number, 1 if any
// score was not a number, and the exit's values, score and class.
ffi::Function ExitChain(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Any> weights,
                        ffi::Array<ffi::Shape> reads, ffi::Array<ffi::Shape> writes,
                        ffi::Array<ffi::Shape> frees, ffi::Array<ffi::Shape> tests, int64_t slots);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_CHAIN_H_
