// When kernels ran on devices, by the host's clock: for traces of what is done at once.
#ifndef LAYOUTSEL_OPENCL_RECORDER_H_
#define LAYOUTSEL_OPENCL_RECORDER_H_

#include <string>
#include <vector>

#include "device.h"

namespace layoutsel::opencl {

struct Ran {
  std::string kernel;
  // Nanoseconds of the host's monotonic clock.
  int64_t start_ns;
  int64_t end_ns;
};

// Start or stop to record all launches of this process; what was recorded is forgotten.
void SetRecording(bool is_on);
bool IsRecording();

// Keep the event of a launch.
void Record(const Device& device, const std::string& kernel, const cl::Event& event);

// What was recorded since it was last asked for, in order of launch; waits until it has run.
std::vector<Ran> Recorded();

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_RECORDER_H_
