// Time on a device, for TVM's time evaluator.
#ifndef LAYOUTSEL_OPENCL_TIMER_H_
#define LAYOUTSEL_OPENCL_TIMER_H_

#include "tvm_abi.h"

namespace layoutsel::opencl {

// Between two markers in the calling thread's queue, by the device's clock.
tvm::ffi::ObjectRef MakeTimer(DLDevice device);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_TIMER_H_
