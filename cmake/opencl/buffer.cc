#include "buffer.h"

#include <tvm/ffi/error.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace layoutsel::opencl {

namespace {

// All places within their buffers: what a driver says of a copy beyond them names neither.
void Check(const Place& place, size_t bytes) {
  if (place.buffer == nullptr || place.offset + bytes <= place.buffer->bytes) return;
  TVM_FFI_THROW(ValueError) << place.buffer->device->label() << ": a copy of " << bytes
                            << " bytes at " << place.offset << " of a buffer of "
                            << place.buffer->bytes << " bytes";
}

// A size that a device tells, for messages: it may be lost, and tell nothing any more.
template <cl_device_info kSize>
std::string MiB(const Device& device) {
  try {
    return std::to_string(device.handle().getInfo<kSize>() >> 20) + " MiB";
  } catch (const cl::Error&) {
    return "unknown";
  }
}

void Read(const Place& from, char* to, size_t bytes, cl::CommandQueue& queue) {
  queue.enqueueReadBuffer(from.buffer->memory, CL_TRUE, from.offset, bytes, to);
}

void Write(const char* from, const Place& to, size_t bytes, cl::CommandQueue& queue) {
  queue.enqueueWriteBuffer(to.buffer->memory, CL_TRUE, to.offset, bytes, from);
}

}  // namespace

Buffer* Allocate(Device& device, size_t bytes) {
  size_t size = std::max<size_t>(bytes, 1);
  try {
    return new Buffer{&device, cl::Buffer(device.context(), CL_MEM_READ_WRITE, size), size};
  } catch (const cl::Error& error) {
    device.Fail("no room for a buffer of " + std::to_string(size) + " bytes (of " +
                    MiB<CL_DEVICE_GLOBAL_MEM_SIZE>(device) + " in all, at most " +
                    MiB<CL_DEVICE_MAX_MEM_ALLOC_SIZE>(device) + " in one buffer)",
                error);
  }
}

void Copy(const Place& from, const Place& to, size_t bytes, cl::CommandQueue from_queue,
          cl::CommandQueue to_queue) {
  if (bytes == 0) return;
  Check(from, bytes);
  Check(to, bytes);
  Device& device = *(from.buffer ? from.buffer : to.buffer)->device;
  try {
    if (to.buffer == nullptr) {
      Read(from, to.host + to.offset, bytes, from_queue);
    } else if (from.buffer == nullptr) {
      Write(from.host + from.offset, to, bytes, to_queue);
    } else if (from.buffer->device == to.buffer->device) {
      from_queue.enqueueCopyBuffer(from.buffer->memory, to.buffer->memory, from.offset, to.offset,
                                   bytes);
      from_queue.flush();
    } else {
      std::vector<char> host(bytes);
      Read(from, host.data(), bytes, from_queue);
      Write(host.data(), to, bytes, to_queue);
    }
  } catch (const cl::Error& error) {
    device.Fail("a copy of " + std::to_string(bytes) + " bytes failed", error);
  }
}

}  // namespace layoutsel::opencl
