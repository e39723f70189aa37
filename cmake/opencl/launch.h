// Which device and queue the calling thread uses.
#ifndef LAYOUTSEL_OPENCL_LAUNCH_H_
#define LAYOUTSEL_OPENCL_LAUNCH_H_

#include "device.h"

namespace layoutsel::opencl {

// The device that TVM's host code chose before it calls a kernel.
int CurrentDevice();
void SetCurrentDevice(int number);

// The thread's stream on a device; null: the device's own queue. The queue behind it lives as long
// as a thread has it.
cl::CommandQueue* CurrentStream(int device);
void SetCurrentStream(int device, cl::CommandQueue* stream);

// The queue of `stream`, or where it is null that of the thread.
cl::CommandQueue QueueOf(int device, cl::CommandQueue* stream = nullptr);

}  // namespace layoutsel::opencl

#endif  // LAYOUTSEL_OPENCL_LAUNCH_H_
