#include "timer.h"

#include "launch.h"

namespace layoutsel::opencl {

namespace {

class Timer : public tvm::runtime::TimerNode {
 public:
  explicit Timer(int device) : device_(device) {}

  void Start() final { Mark(&start_); }
  void Stop() final { Mark(&end_); }

  int64_t SyncAndGetElapsedNanos() final {
    try {
      end_.wait();
      return static_cast<int64_t>(end_.getProfilingInfo<CL_PROFILING_COMMAND_END>() -
                                  start_.getProfilingInfo<CL_PROFILING_COMMAND_END>());
    } catch (const cl::Error& error) {
      DeviceAt(device_).Fail("cannot be timed", error);
    }
  }

  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("layoutsel.OpenClTimer", Timer, tvm::runtime::TimerNode);

 private:
  void Mark(cl::Event* event) {
    try {
      QueueOf(device_).enqueueMarkerWithWaitList(nullptr, event);
    } catch (const cl::Error& error) {
      DeviceAt(device_).Fail("cannot be timed", error);
    }
  }

  int device_;
  cl::Event start_;
  cl::Event end_;
};

}  // namespace

tvm::ffi::ObjectRef MakeTimer(DLDevice device) {
  return tvm::ffi::ObjectRef(tvm::ffi::make_object<Timer>(device.device_id));
}

}  // namespace layoutsel::opencl
