// What a tensor's data pointer leads to: a buffer on a device.
#ifndef LAYOUTSEL_OPENCL_BUFFER_H_
#define LAYOUTSEL_OPENCL_BUFFER_H_

#include <cstddef>

#include "device.h"

namespace layoutsel::opencl {

struct Buffer {
  Device* device;
  cl::Buffer memory;
  size_t bytes;
};

// A buffer of at least one byte; throws a RuntimeError that says what the device has where there is
// no room.
Buffer* Allocate(Device& device, size_t bytes);

// An end of a copy: host memory where `buffer` is null.
struct Place {
  Buffer* buffer;
  char* host;
  size_t offset;
};

// Copies bytes, from or to a device, on the queues of both ends (that of the other end where one is
// the host). What the host gives or gets is done on return; between buffers of one device the copy
// is enqueued, between devices it goes through the host.
void Copy(const Place& from, const Place& to, size_t bytes, cl::CommandQueue from_queue,
          cl::CommandQueue to_queue);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_BUFFER_H_
