// A module of OpenCL kernels, as TVM's code generation hands it over and as it is saved.
#ifndef LAYOUTSEL_OPENCL_MODULE_H_
#define LAYOUTSEL_OPENCL_MODULE_H_

#include <tvm/ffi/extra/module.h>

#include "tvm_abi.h"

namespace layoutsel::opencl {

using KernelInfos = tvm::ffi::Map<tvm::ffi::String, tvm::runtime::FunctionInfo>;

// `code` is OpenCL C, one "// Function: name" line before each kernel.
tvm::ffi::Module CreateModule(tvm::ffi::Bytes code, tvm::ffi::String format, KernelInfos infos);

// What SaveToBytes wrote, which is what TVM's own OpenCL modules write.
tvm::ffi::Module LoadModule(const tvm::ffi::Bytes& bytes);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_MODULE_H_
