// The OpenCL devices of this machine, in the order of their numbers in TVM.
#ifndef LAYOUTSEL_OPENCL_DEVICE_H_
#define LAYOUTSEL_OPENCL_DEVICE_H_

#include <mutex>
#include <string>
#include <vector>

#include "opencl.h"

namespace layoutsel::opencl {

// A device; its context and queue are made when they are first asked for.
class Device {
 public:
  Device(int number, cl::Platform platform, cl::Device handle);

  const cl::Context& context();
  // In order, with profiling. Work of all threads goes here unless they set a stream of their own.
  cl::CommandQueue& queue();
  cl::CommandQueue NewQueue();

  // "opencl:0 (name)", for messages.
  const std::string& label() const { return label_; }
  // All that a binary for this device depends on: platform, device and driver, with their versions.
  const std::string& identity() const { return identity_; }
  const cl::Device& handle() const { return handle_; }

  // Throws a RuntimeError that says which device failed at what, and how.
  [[noreturn]] void Fail(const std::string& doing, const cl::Error& error) const;

 private:
  void Open();

  cl::Device handle_;
  std::string label_;
  std::string identity_;
  std::once_flag opened_;
  cl::Context context_;
  cl::CommandQueue queue_;
};

// All devices: GPUs and accelerators before CPUs. Empty without a driver; never throws.
const std::vector<Device*>& Devices();

// The device with a number; throws a ValueError where there is none.
Device& DeviceAt(int number);

// Such as "CL_OUT_OF_RESOURCES (-5)".
std::string CodeName(cl_int code);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_DEVICE_H_
