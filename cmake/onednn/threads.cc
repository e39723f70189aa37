#include "threads.h"

#include <omp.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>

#include <atomic>
#include <cstdint>

namespace layoutsel {

namespace {

std::atomic<int> requested{0};

// Must match tvm/runtime/c_backend_api.h.
struct ParallelGroupEnv {
  void* sync_handle;
  int32_t num_task;
};
using ParallelLambda = int (*)(int task_id, ParallelGroupEnv* env, void* cdata);

int ParallelLaunch(ParallelLambda body, void* cdata, int num_task) {
  ApplyNumThreads();
  if (omp_in_parallel()) {
    ParallelGroupEnv env{nullptr, 1};
    return body(0, &env, cdata);
  }
  int threads = omp_get_max_threads();
  if (num_task > 0 && num_task < threads) threads = num_task;
  TVMFFIObjectHandle failure = nullptr;
#pragma omp parallel num_threads(threads)
  {
    ParallelGroupEnv env{nullptr, omp_get_num_threads()};
    if (body(omp_get_thread_num(), &env, cdata) != 0) {
      TVMFFIObjectHandle raised = nullptr;
      TVMFFIErrorMoveFromRaised(&raised);
#pragma omp critical(layoutsel_parallel_launch)
      {
        if (failure == nullptr) {
          failure = raised;
        } else if (raised != nullptr) {
          TVMFFIObjectDecRef(raised);
        }
      }
    }
  }
  if (failure == nullptr) return 0;
  TVMFFIErrorSetRaised(failure);
  TVMFFIObjectDecRef(failure);
  return -1;
}

int ParallelBarrier(int, ParallelGroupEnv*) {
#pragma omp barrier
  return 0;
}

}  // namespace

void SetNumThreads(int count) {
  requested = count;
  ApplyNumThreads();
}

int GetNumThreads() {
  ApplyNumThreads();
  return omp_get_max_threads();
}

void ApplyNumThreads() {
  int count = requested;
  if (count > 0 && omp_get_max_threads() != count) omp_set_num_threads(count);
}

void RegisterParallelLaunch() {
  TVMFFIEnvModRegisterContextSymbol("__TVMBackendParallelLaunch",
                                    reinterpret_cast<void*>(ParallelLaunch));
  TVMFFIEnvModRegisterContextSymbol("__TVMBackendParallelBarrier",
                                    reinterpret_cast<void*>(ParallelBarrier));
}

}  // namespace layoutsel
