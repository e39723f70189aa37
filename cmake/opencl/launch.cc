#include "launch.h"

#include <unordered_map>

namespace layoutsel::opencl {

namespace {

thread_local int current_device = 0;

struct Stream {
  cl::CommandQueue* handle;
  cl::CommandQueue queue;
};
thread_local std::unordered_map<int, Stream> current_streams;

}  // namespace

int CurrentDevice() { return current_device; }

void SetCurrentDevice(int number) { current_device = number; }

cl::CommandQueue* CurrentStream(int device) {
  auto found = current_streams.find(device);
  return found == current_streams.end() ? nullptr : found->second.handle;
}

void SetCurrentStream(int device, cl::CommandQueue* stream) {
  current_streams.erase(device);
  if (stream != nullptr) current_streams.emplace(device, Stream{stream, *stream});
}

cl::CommandQueue QueueOf(int device, cl::CommandQueue* stream) {
  if (stream != nullptr) return *stream;
  auto found = current_streams.find(device);
  return found == current_streams.end() ? DeviceAt(device).queue() : found->second.queue;
}

}  // namespace layoutsel::opencl
