// OpenCL C → a kernel on one device.
#ifndef LAYOUTSEL_OPENCL_PROGRAM_H_
#define LAYOUTSEL_OPENCL_PROGRAM_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "binary_cache.h"
#include "device.h"

namespace layoutsel::opencl {

// How kernels came about in this process, for tests.
struct BuildCounts {
  std::atomic<int64_t> from_source{0};
  std::atomic<int64_t> from_binary{0};
};
BuildCounts& Counts();

struct Built {
  cl::Kernel kernel;
  bool is_from_source;
};

// To be held from building to keeping.
BuildLock Lock(const Device& device, const std::string& source);

// From a kept binary where there is one, else from source. Throws a RuntimeError with kernel,
// device and the compiler's log where the source does not build.
Built Build(Device& device, const std::string& name, const std::string& source);

// Keeps the binary of a kernel. After its first run: drivers that specialise for a work-group's
// size have done so then.
void Keep(Device& device, const cl::Kernel& kernel, const std::string& source);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_PROGRAM_H_
