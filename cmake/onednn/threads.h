// One thread pool for TVM's kernels and oneDNN's: OpenMP's.
#ifndef LAYOUTSEL_ONEDNN_THREADS_H_
#define LAYOUTSEL_ONEDNN_THREADS_H_

namespace layoutsel {

// Threads of every later call, in any calling thread; 0: as OpenMP is set up.
void SetNumThreads(int count);
int GetNumThreads();

// Brings the calling thread's OpenMP setting in line with SetNumThreads.
void ApplyNumThreads();

// Lets TVM modules that are loaded from now on run their parallel loops on OpenMP.
void RegisterParallelLaunch();

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_THREADS_H_
