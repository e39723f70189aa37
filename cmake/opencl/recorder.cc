#include "recorder.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

namespace layoutsel::opencl {

namespace {

// How often clocks are compared: the least difference has the least delay in it.
constexpr int kComparisons = 5;

struct Launch {
  const Device* device;
  std::string kernel;
  cl::Event event;
};

std::atomic<bool> is_recording{false};
std::mutex mutex;
std::vector<Launch> launches;

int64_t Now() {
  auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

// What to add to a device's time to have the host's.
int64_t Offset(const Device& device, const cl::Context& context) {
  cl::CommandQueue queue(context, device.handle(), CL_QUEUE_PROFILING_ENABLE);
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < kComparisons; ++i) {
    cl::Event event;
    queue.enqueueMarkerWithWaitList(nullptr, &event);
    event.wait();
    auto there = static_cast<int64_t>(event.getProfilingInfo<CL_PROFILING_COMMAND_END>());
    least = std::min(least, Now() - there);
  }
  return least;
}

}  // namespace

bool IsRecording() { return is_recording; }

void SetRecording(bool is_on) {
  std::lock_guard<std::mutex> lock(mutex);
  launches.clear();
  is_recording = is_on;
}

void Record(const Device& device, const std::string& kernel, const cl::Event& event) {
  std::lock_guard<std::mutex> lock(mutex);
  if (is_recording) launches.push_back({&device, kernel, event});
}

std::vector<Ran> Recorded() {
  std::vector<Launch> taken;
  {
    std::lock_guard<std::mutex> lock(mutex);
    taken.swap(launches);
  }
  std::vector<Ran> result;
  std::map<const Device*, int64_t> offsets;
  for (const Launch& launch : taken) {
    try {
      launch.event.wait();
      auto found = offsets.find(launch.device);
      if (found == offsets.end()) {
        cl::Context context =
            launch.event.getInfo<CL_EVENT_COMMAND_QUEUE>().getInfo<CL_QUEUE_CONTEXT>();
        found = offsets.emplace(launch.device, Offset(*launch.device, context)).first;
      }
      auto start = launch.event.getProfilingInfo<CL_PROFILING_COMMAND_START>();
      auto end = launch.event.getProfilingInfo<CL_PROFILING_COMMAND_END>();
      result.push_back({launch.kernel, static_cast<int64_t>(start) + found->second,
                        static_cast<int64_t>(end) + found->second});
    } catch (const cl::Error& error) {
      launch.device->Fail("kernel '" + launch.kernel + "' cannot be timed", error);
    }
  }
  return result;
}

}  // namespace layoutsel::opencl
