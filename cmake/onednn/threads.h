// One thread pool for TVM's kernels and oneDNN's: OpenMP's.
#ifndef LAYOUTSEL_ONEDNN_THREADS_H_
#define LAYOUTSEL_ONEDNN_THREADS_H_

namespace layoutsel {

// Threads of the calling thread's later calls; 0: as OpenMP is set up. Returns the count before.
// The setting is ours alone: OpenMP's own stays as it is.
int SetNumThreads(int count);

// Threads that a call from this thread computes with.
int GetNumThreads();

// Within its life, calls of this thread compute on `count` threads.
class RequestedThreads {
 public:
  explicit RequestedThreads(int count) : before_(SetNumThreads(count)) {}
  ~RequestedThreads() { SetNumThreads(before_); }
  RequestedThreads(const RequestedThreads&) = delete;
  RequestedThreads& operator=(const RequestedThreads&) = delete;

 private:
  int before_;
};

// Within its life, OpenMP's setting of the calling thread is GetNumThreads(), for oneDNN.
class ScopedThreads {
 public:
  ScopedThreads();
  ~ScopedThreads();
  ScopedThreads(const ScopedThreads&) = delete;
  ScopedThreads& operator=(const ScopedThreads&) = delete;

 private:
  int before_;
};

// Lets TVM modules that are loaded from now on run their parallel loops on OpenMP.
void RegisterParallelLaunch();

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_THREADS_H_
