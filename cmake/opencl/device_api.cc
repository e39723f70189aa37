#include "device_api.h"

#include <string>

#include "buffer.h"
#include "launch.h"

namespace layoutsel::opencl {

namespace ffi = tvm::ffi;
using tvm::runtime::DeviceAPI;
using tvm::runtime::DeviceAttrKind;

namespace {

// Of what TVM may ask; the others stay undefined.
void Attribute(const cl::Device& device, DeviceAttrKind kind, ffi::Any* result) {
  switch (kind) {
    case tvm::runtime::kMaxThreadsPerBlock:
      *result = static_cast<int64_t>(device.getInfo<CL_DEVICE_MAX_WORK_GROUP_SIZE>());
      return;
    case tvm::runtime::kWarpSize:
      // Code for more would use shuffles between the work-items of a sub-group, an extension of one
      // vendor.
      *result = 1;
      return;
    case tvm::runtime::kMaxSharedMemoryPerBlock:
      *result = static_cast<int64_t>(device.getInfo<CL_DEVICE_LOCAL_MEM_SIZE>());
      return;
    case tvm::runtime::kComputeVersion:
      *result = ffi::String(device.getInfo<CL_DEVICE_VERSION>());
      return;
    case tvm::runtime::kDeviceName:
      *result = ffi::String(device.getInfo<CL_DEVICE_NAME>());
      return;
    case tvm::runtime::kMaxClockRate:  // kHz
      *result = static_cast<int64_t>(device.getInfo<CL_DEVICE_MAX_CLOCK_FREQUENCY>()) * 1000;
      return;
    case tvm::runtime::kMultiProcessorCount:
      *result = static_cast<int64_t>(device.getInfo<CL_DEVICE_MAX_COMPUTE_UNITS>());
      return;
    case tvm::runtime::kMaxThreadDimensions: {
      auto sizes = device.getInfo<CL_DEVICE_MAX_WORK_ITEM_SIZES>();
      *result = ffi::String("[" + std::to_string(sizes[0]) + ", " + std::to_string(sizes[1]) +
                            ", " + std::to_string(sizes[2]) + "]");
      return;
    }
    case tvm::runtime::kDriverVersion:
      *result = ffi::String(device.getInfo<CL_DRIVER_VERSION>());
      return;
    case tvm::runtime::kL2CacheSizeBytes:
      *result = static_cast<int64_t>(device.getInfo<CL_DEVICE_GLOBAL_MEM_CACHE_SIZE>());
      return;
    case tvm::runtime::kTotalGlobalMemory:
      *result = static_cast<int64_t>(device.getInfo<CL_DEVICE_GLOBAL_MEM_SIZE>());
      return;
    default:
      return;
  }
}

Place PlaceOf(const void* data, size_t offset, tvm::Device device) {
  auto* mutable_data = const_cast<void*>(data);
  if (device.device_type == kDLOpenCL) {
    return {static_cast<Buffer*>(mutable_data), nullptr, offset};
  }
  if (device.device_type == kDLCPU) return {nullptr, static_cast<char*>(mutable_data), offset};
  TVM_FFI_THROW(ValueError) << "cannot copy between OpenCL and a device of type "
                            << int{device.device_type} << ": copy to the CPU first";
  TVM_FFI_UNREACHABLE();
}

cl::CommandQueue* AsQueue(TVMStreamHandle stream) { return static_cast<cl::CommandQueue*>(stream); }

class OpenClApi final : public DeviceAPI {
 public:
  void SetDevice(tvm::Device dev) final { SetCurrentDevice(dev.device_id); }

  void GetAttr(tvm::Device dev, DeviceAttrKind kind, ffi::Any* rv) final {
    if (kind == tvm::runtime::kExist) {
      *rv = dev.device_id >= 0 && dev.device_id < static_cast<int>(Devices().size());
      return;
    }
    Device& device = DeviceAt(dev.device_id);
    try {
      Attribute(device.handle(), kind, rv);
    } catch (const cl::Error& error) {
      device.Fail("attribute " + std::to_string(kind) + " is unknown", error);
    }
  }

  void* AllocDataSpace(tvm::Device dev, size_t nbytes, size_t, DLDataType) final {
    return Allocate(DeviceAt(dev.device_id), nbytes);
  }

  void* AllocDataSpace(tvm::Device dev, int ndim, const int64_t* shape, DLDataType dtype,
                       ffi::Optional<ffi::String> mem_scope) final {
    return DeviceAPI::AllocDataSpace(dev, ndim, shape, dtype, mem_scope);
  }

  void FreeDataSpace(tvm::Device, void* ptr) final { delete static_cast<Buffer*>(ptr); }

  TVMStreamHandle CreateStream(tvm::Device dev) final {
    Device& device = DeviceAt(dev.device_id);
    try {
      return new cl::CommandQueue(device.NewQueue());
    } catch (const cl::Error& error) {
      device.Fail("no further stream", error);
    }
  }

  void FreeStream(tvm::Device dev, TVMStreamHandle stream) final {
    if (CurrentStream(dev.device_id) == stream) SetCurrentStream(dev.device_id, nullptr);
    delete AsQueue(stream);
  }

  void SetStream(tvm::Device dev, TVMStreamHandle stream) final {
    SetCurrentStream(dev.device_id, AsQueue(stream));
  }

  TVMStreamHandle GetCurrentStream(tvm::Device dev) final { return CurrentStream(dev.device_id); }

  void StreamSync(tvm::Device dev, TVMStreamHandle stream) final {
    try {
      QueueOf(dev.device_id, AsQueue(stream)).finish();
    } catch (const cl::Error& error) {
      DeviceAt(dev.device_id).Fail("work on the device failed", error);
    }
  }

  void SyncStreamFromTo(tvm::Device dev, TVMStreamHandle from, TVMStreamHandle to) final {
    try {
      std::vector<cl::Event> done(1);
      QueueOf(dev.device_id, AsQueue(from)).enqueueMarkerWithWaitList(nullptr, &done[0]);
      QueueOf(dev.device_id, AsQueue(from)).flush();
      QueueOf(dev.device_id, AsQueue(to)).enqueueBarrierWithWaitList(&done);
    } catch (const cl::Error& error) {
      DeviceAt(dev.device_id).Fail("streams cannot wait for each other", error);
    }
  }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset,
                      size_t num_bytes, tvm::Device dev_from, tvm::Device dev_to, DLDataType,
                      TVMStreamHandle stream) final {
    bool is_read = dev_from.device_type == kDLOpenCL;
    bool is_between =
        is_read && dev_to.device_type == kDLOpenCL && dev_from.device_id != dev_to.device_id;
    cl::CommandQueue queue =
        QueueOf(is_read ? dev_from.device_id : dev_to.device_id, AsQueue(stream));
    Copy(PlaceOf(from, from_offset, dev_from), PlaceOf(to, to_offset, dev_to), num_bytes, queue,
         is_between ? QueueOf(dev_to.device_id) : queue);
  }

  using DeviceAPI::CopyDataFromTo;
};

}  // namespace

DeviceAPI* Api() {
  static DeviceAPI* api = new OpenClApi;
  return api;
}

}  // namespace layoutsel::opencl
