// Cores of the calling thread.
#ifndef LAYOUTSEL_ONEDNN_CORES_H_
#define LAYOUTSEL_ONEDNN_CORES_H_

#include <sched.h>

#include <cstdint>
#include <vector>

namespace layoutsel {

// Within its life, the calling thread runs on some cores alone, if this process may use them. None:
// the thread stays as it is.
class ScopedCores {
 public:
  explicit ScopedCores(const std::vector<int64_t>& cores);
  ~ScopedCores();
  ScopedCores(const ScopedCores&) = delete;
  ScopedCores& operator=(const ScopedCores&) = delete;

 private:
  cpu_set_t before_;
  bool is_set_ = false;
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_CORES_H_
