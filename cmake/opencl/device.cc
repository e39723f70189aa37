#include "device.h"

#include <tvm/ffi/error.h>

#include <algorithm>
#include <map>
#include <sstream>

namespace layoutsel::opencl {

namespace {

bool IsCpu(const cl::Device& device) {
  return device.getInfo<CL_DEVICE_TYPE>() & CL_DEVICE_TYPE_CPU;
}

// Whether a device answers, and builds programs.
bool Works(const cl::Device& device) {
  try {
    device.getInfo<CL_DEVICE_TYPE>();
    device.getInfo<CL_DEVICE_NAME>();
    device.getInfo<CL_DEVICE_VERSION>();
    device.getInfo<CL_DRIVER_VERSION>();
    return device.getInfo<CL_DEVICE_AVAILABLE>() && device.getInfo<CL_DEVICE_COMPILER_AVAILABLE>();
  } catch (const cl::Error&) {
    return false;
  }
}

struct Found {
  cl::Platform platform;
  cl::Device device;
};

std::vector<Found> Find() {
  std::vector<Found> found;
  std::vector<cl::Platform> platforms;
  try {
    cl::Platform::get(&platforms);
  } catch (const cl::Error&) {
    return found;  // the loader knows of no driver
  }
  for (const cl::Platform& platform : platforms) {
    std::vector<cl::Device> devices;
    try {
      platform.getDevices(CL_DEVICE_TYPE_ALL, &devices);
    } catch (const cl::Error&) {
      continue;  // a driver without a device
    }
    for (const cl::Device& device : devices) {
      if (Works(device)) found.push_back({platform, device});
    }
  }
  std::stable_partition(found.begin(), found.end(),
                        [](const Found& each) { return !IsCpu(each.device); });
  return found;
}

}  // namespace

Device::Device(int number, cl::Platform platform, cl::Device handle) : handle_(std::move(handle)) {
  std::string name = handle_.getInfo<CL_DEVICE_NAME>();
  label_ = "opencl:" + std::to_string(number) + " (" + name + ")";
  for (const std::string& part :
       {platform.getInfo<CL_PLATFORM_NAME>(), platform.getInfo<CL_PLATFORM_VERSION>(), name,
        handle_.getInfo<CL_DEVICE_VERSION>(), handle_.getInfo<CL_DRIVER_VERSION>()}) {
    identity_ += part + "\n";
  }
}

void Device::Open() {
  std::call_once(opened_, [this] {
    try {
      context_ = cl::Context(handle_);
      queue_ = cl::CommandQueue(context_, handle_, CL_QUEUE_PROFILING_ENABLE);
    } catch (const cl::Error& error) {
      Fail("cannot be opened", error);
    }
  });
}

const cl::Context& Device::context() {
  Open();
  return context_;
}

cl::CommandQueue& Device::queue() {
  Open();
  return queue_;
}

cl::CommandQueue Device::NewQueue() {
  return cl::CommandQueue(context(), handle_, CL_QUEUE_PROFILING_ENABLE);
}

void Device::Fail(const std::string& doing, const cl::Error& error) const {
  TVM_FFI_THROW(RuntimeError) << label_ << ": " << doing << ": " << error.what() << " gave "
                              << CodeName(error.err());
  TVM_FFI_UNREACHABLE();
}

const std::vector<Device*>& Devices() {
  // Never released: drivers may be gone before static objects are.
  static const std::vector<Device*>* devices = [] {
    auto* result = new std::vector<Device*>;
    for (Found& each : Find()) {
      result->push_back(new Device(static_cast<int>(result->size()), each.platform, each.device));
    }
    return result;
  }();
  return *devices;
}

Device& DeviceAt(int number) {
  const std::vector<Device*>& devices = Devices();
  if (number < 0 || number >= static_cast<int>(devices.size())) {
    std::ostringstream expected;
    for (const Device* device : devices) expected << "; " << device->label();
    TVM_FFI_THROW(ValueError) << "no device opencl:" << number << ": this machine has "
                              << devices.size() << " with a driver" << expected.str();
  }
  return *devices[number];
}

std::string CodeName(cl_int code) {
  static const std::map<cl_int, const char*> names = {
      {CL_DEVICE_NOT_FOUND, "CL_DEVICE_NOT_FOUND"},
      {CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE"},
      {CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE"},
      {CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
      {CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES"},
      {CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY"},
      {CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE"},
      {CL_INVALID_VALUE, "CL_INVALID_VALUE"},
      {CL_INVALID_DEVICE, "CL_INVALID_DEVICE"},
      {CL_INVALID_CONTEXT, "CL_INVALID_CONTEXT"},
      {CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE"},
      {CL_INVALID_MEM_OBJECT, "CL_INVALID_MEM_OBJECT"},
      {CL_INVALID_BINARY, "CL_INVALID_BINARY"},
      {CL_INVALID_BUILD_OPTIONS, "CL_INVALID_BUILD_OPTIONS"},
      {CL_INVALID_PROGRAM, "CL_INVALID_PROGRAM"},
      {CL_INVALID_PROGRAM_EXECUTABLE, "CL_INVALID_PROGRAM_EXECUTABLE"},
      {CL_INVALID_KERNEL_NAME, "CL_INVALID_KERNEL_NAME"},
      {CL_INVALID_KERNEL, "CL_INVALID_KERNEL"},
      {CL_INVALID_ARG_INDEX, "CL_INVALID_ARG_INDEX"},
      {CL_INVALID_ARG_VALUE, "CL_INVALID_ARG_VALUE"},
      {CL_INVALID_ARG_SIZE, "CL_INVALID_ARG_SIZE"},
      {CL_INVALID_KERNEL_ARGS, "CL_INVALID_KERNEL_ARGS"},
      {CL_INVALID_WORK_DIMENSION, "CL_INVALID_WORK_DIMENSION"},
      {CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE"},
      {CL_INVALID_WORK_ITEM_SIZE, "CL_INVALID_WORK_ITEM_SIZE"},
      {CL_INVALID_EVENT, "CL_INVALID_EVENT"},
      {CL_INVALID_OPERATION, "CL_INVALID_OPERATION"},
      {CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE"},
      {CL_INVALID_GLOBAL_WORK_SIZE, "CL_INVALID_GLOBAL_WORK_SIZE"},
  };
  auto found = names.find(code);
  std::string name = found == names.end() ? "an error" : found->second;
  return name + " (" + std::to_string(code) + ")";
}

}  // namespace layoutsel::opencl
