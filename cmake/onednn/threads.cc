#include "threads.h"

#include <omp.h>
#include <pthread.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>

#include <cstdint>
#include <utility>

#include "placement.h"

namespace layoutsel {

namespace {

thread_local int requested = 0;

// Whether the calling thread came through a fork. OpenMP still counts on the pool that it had,
// whose threads are gone, and would wait for them for ever; a team of one needs no pool.
thread_local bool lost_its_pool = false;

// Must match tvm/runtime/c_backend_api.h.
struct ParallelGroupEnv {
  void* sync_handle;
  int32_t num_task;
};
using ParallelLambda = int (*)(int task_id, ParallelGroupEnv* env, void* cdata);

int ParallelLaunch(ParallelLambda body, void* cdata, int num_task) {
  int threads = GetNumThreads();
  if (num_task > 0 && num_task < threads) threads = num_task;
  // A team of one costs as much as a kernel of a microsecond.
  if (threads == 1 || omp_in_parallel()) {
    ParallelGroupEnv env{nullptr, 1};
    return body(0, &env, cdata);
  }
  KeepTeamApart(threads);
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

int SetNumThreads(int count) { return std::exchange(requested, count); }

int GetNumThreads() {
  if (lost_its_pool) return 1;
  return requested > 0 ? requested : omp_get_max_threads();
}

ScopedThreads::ScopedThreads() : before_(omp_get_max_threads()) {
  if (GetNumThreads() != before_) omp_set_num_threads(GetNumThreads());
  if (!omp_in_parallel()) KeepTeamApart(GetNumThreads());
}

ScopedThreads::~ScopedThreads() {
  if (omp_get_max_threads() != before_) omp_set_num_threads(before_);
}

void RegisterParallelLaunch() {
  TVMFFIEnvModRegisterContextSymbol("__TVMBackendParallelLaunch",
                                    reinterpret_cast<void*>(ParallelLaunch));
  TVMFFIEnvModRegisterContextSymbol("__TVMBackendParallelBarrier",
                                    reinterpret_cast<void*>(ParallelBarrier));
  pthread_atfork(nullptr, nullptr, [] { lost_its_pool = true; });
}

}  // namespace layoutsel
