// How a module of kernels is saved: TVM's own form, so that artifacts pass between its run time and
// this one.
#ifndef LAYOUTSEL_OPENCL_WIRE_H_
#define LAYOUTSEL_OPENCL_WIRE_H_

#include <string>

#include "module.h"

namespace layoutsel::opencl {

struct Saved {
  std::string format;
  KernelInfos infos;
  std::string code;
};

tvm::ffi::Bytes WriteModule(const std::string& format, const KernelInfos& infos,
                            const std::string& code);

// Throws a ValueError where the bytes end early.
Saved ReadModule(const tvm::ffi::Bytes& bytes);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_WIRE_H_
