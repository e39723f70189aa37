// OpenCL as TVM sees it.
#ifndef LAYOUTSEL_OPENCL_DEVICE_API_H_
#define LAYOUTSEL_OPENCL_DEVICE_API_H_

#include "tvm_abi.h"

namespace layoutsel::opencl {

// The one object, never released.
tvm::runtime::DeviceAPI* Api();

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_DEVICE_API_H_
