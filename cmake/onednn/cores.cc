#include "cores.h"

namespace layoutsel {

ScopedCores::ScopedCores(const std::vector<int64_t>& cores) {
  if (cores.empty() || sched_getaffinity(0, sizeof(before_), &before_) != 0) return;
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (int64_t core : cores) CPU_SET(core, &wanted);
  is_set_ = !CPU_EQUAL(&wanted, &before_) && sched_setaffinity(0, sizeof(wanted), &wanted) == 0;
}

ScopedCores::~ScopedCores() {
  if (is_set_) sched_setaffinity(0, sizeof(before_), &before_);
}

}  // namespace layoutsel
