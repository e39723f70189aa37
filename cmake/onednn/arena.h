// Memory of intermediates: offsets by lifetime, one buffer per thread.
#ifndef LAYOUTSEL_ONEDNN_ARENA_H_
#define LAYOUTSEL_ONEDNN_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph.h"

namespace layoutsel {

struct ArenaPlan {
  std::vector<int64_t> offsets;  // per storage, in bytes; -1 for what is not in the arena
  int64_t bytes = 0;
};

// Storages whose lifetimes do not overlap share memory: greedy by size, first fit.
ArenaPlan PlanArena(const Graph& graph);

// At least `bytes` of memory that belongs to the calling thread. It lies at the same place as in
// the last call, unless a larger size was asked for in between. Contents do not survive.
char* ThreadArena(int64_t bytes);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_ARENA_H_
