#include "program.h"

#include <tvm/ffi/error.h>

#include <optional>
#include <vector>

namespace layoutsel::opencl {

namespace {

std::string Key(const Device& device, const std::string& source) {
  return device.identity() + "\n" + source;
}

std::string Log(const Device& device, const cl::Program& program) {
  try {
    return program.getBuildInfo<CL_PROGRAM_BUILD_LOG>(device.handle());
  } catch (const cl::Error&) {
    return "";  // some drivers have none after some failures
  }
}

std::optional<cl::Kernel> FromBinary(Device& device, const std::string& name,
                                     const std::string& source) {
  std::optional<Binary> binary = Cache()->Load(Key(device, source));
  if (!binary) return std::nullopt;
  try {
    cl::Program program(device.context(), {device.handle()}, {*binary});
    program.build(device.handle());
    return cl::Kernel(program, name.c_str());
  } catch (const cl::Error&) {
    return std::nullopt;  // the driver changed without saying so
  }
}

cl::Kernel FromSource(Device& device, const std::string& name, const std::string& source) {
  cl::Program program;
  try {
    program = cl::Program(device.context(), source);
    program.build(device.handle());
    return cl::Kernel(program, name.c_str());
  } catch (const cl::Error& error) {
    if (program() == nullptr) device.Fail("kernel '" + name + "' does not build", error);
    device.Fail("kernel '" + name + "' does not build; the compiler says:\n" +
                    Log(device, program) + "\nof\n" + source,
                error);
  }
}

}  // namespace

BuildCounts& Counts() {
  static BuildCounts counts;
  return counts;
}

BuildLock Lock(const Device& device, const std::string& source) {
  return Cache()->Lock(Key(device, source));
}

Built Build(Device& device, const std::string& name, const std::string& source) {
  if (std::optional<cl::Kernel> kernel = FromBinary(device, name, source)) {
    ++Counts().from_binary;
    return {*kernel, false};
  }
  ++Counts().from_source;
  return {FromSource(device, name, source), true};
}

void Keep(Device& device, const cl::Kernel& kernel, const std::string& source) {
  try {
    auto program = kernel.getInfo<CL_KERNEL_PROGRAM>();
    std::vector<Binary> binaries = program.getInfo<CL_PROGRAM_BINARIES>();
    if (binaries.size() == 1 && !binaries[0].empty()) {
      Cache()->Store(Key(device, source), binaries[0]);
    }
  } catch (const cl::Error&) {
    // a driver that gives no binaries builds from source every time
  }
}

}  // namespace layoutsel::opencl
