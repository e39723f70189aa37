#include "launch.h"

#include <unordered_map>

namespace layoutsel::opencl {

namespace {

thread_local int current_device = 0;
thread_local std::unordered_map<int, cl::CommandQueue*> current_streams;

}  // namespace

int CurrentDevice() { return current_device; }

void SetCurrentDevice(int number) { current_device = number; }

cl::CommandQueue* CurrentStream(int device) {
  auto found = current_streams.find(device);
  return found == current_streams.end() ? nullptr : found->second;
}

void SetCurrentStream(int device, cl::CommandQueue* stream) { current_streams[device] = stream; }

cl::CommandQueue& QueueOf(int device, cl::CommandQueue* stream) {
  if (stream == nullptr) stream = CurrentStream(device);
  return stream != nullptr ? *stream : DeviceAt(device).queue();
}

}  // namespace layoutsel::opencl
