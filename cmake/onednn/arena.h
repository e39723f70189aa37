// Memory of intermediates: offsets by lifetime, one buffer per thread.
#ifndef LAYOUTSEL_ONEDNN_ARENA_H_
#define LAYOUTSEL_ONEDNN_ARENA_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "graph.h"

namespace layoutsel {

struct ArenaPlan {
  std::vector<int64_t> offsets;  // per storage, in bytes; -1 for what is not in the arena
  int64_t bytes = 0;
};

// First and last time at which a storage is in use; unused as long as nobody touches it.
struct Lifetime {
  int64_t first = std::numeric_limits<int64_t>::max();
  int64_t last = -1;

  void Touch(int64_t time) {
    first = std::min(first, time);
    last = std::max(last, time);
  }
  bool Overlaps(const Lifetime& other) const { return first <= other.last && other.first <= last; }
};

// Storages whose lifetimes do not overlap share memory: greedy by size, first fit.
ArenaPlan PlanArena(const std::vector<Lifetime>& lives, const std::vector<int64_t>& bytes);

// The arena of a graph's intermediates.
ArenaPlan PlanArena(const Graph& graph);

// Memory for an arena.
std::shared_ptr<char> NewArena(int64_t bytes);

// At least `bytes` of memory that belongs to the calling thread. It lies at the same place as in
// the last call, unless a larger size was asked for in between. Contents do not survive.
char* ThreadArena(int64_t bytes);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_ARENA_H_
