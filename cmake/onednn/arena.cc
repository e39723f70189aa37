#include "arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>

namespace layoutsel {

namespace {

constexpr int64_t kAlignment = 64;      // a cache line
constexpr int64_t kHugePage = 2 << 20;  // fewer misses of the address cache
constexpr int64_t kHugePageFrom = 1 << 20;

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

std::vector<Lifetime> Lifetimes(const Graph& graph) {
  std::vector<Lifetime> out(graph.storages.size());
  for (size_t time = 0; time < graph.nodes.size(); ++time) {
    const Node& node = graph.nodes[time];
    auto touch = [&](int64_t tensor) { out[graph.tensors[tensor].storage].Touch(time); };
    std::for_each(node.inputs.begin(), node.inputs.end(), touch);
    std::for_each(node.outputs.begin(), node.outputs.end(), touch);
    for (const PostOp& op : node.post_ops) {
      if (op.tensor >= 0) touch(op.tensor);
    }
  }
  return out;
}

struct Buffer {
  char* data = nullptr;
  int64_t bytes = 0;

  ~Buffer() { std::free(data); }
};

}  // namespace

ArenaPlan PlanArena(const std::vector<Lifetime>& lives, const std::vector<int64_t>& bytes) {
  ArenaPlan plan;
  plan.offsets.assign(lives.size(), -1);
  std::vector<size_t> order(lives.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return bytes[a] > bytes[b]; });
  std::vector<size_t> placed;  // ascending by offset
  for (size_t id : order) {
    if (lives[id].last < 0) continue;
    int64_t size = RoundUp(bytes[id], kAlignment);
    int64_t at = 0;
    for (size_t other : placed) {
      if (!lives[id].Overlaps(lives[other])) continue;
      if (at + size <= plan.offsets[other]) break;
      at = std::max(at, plan.offsets[other] + RoundUp(bytes[other], kAlignment));
    }
    plan.offsets[id] = at;
    plan.bytes = std::max(plan.bytes, at + size);
    auto place = std::upper_bound(placed.begin(), placed.end(), at,
                                  [&](int64_t value, size_t b) { return value < plan.offsets[b]; });
    placed.insert(place, id);
  }
  return plan;
}

ArenaPlan PlanArena(const Graph& graph) {
  std::vector<Lifetime> lives = Lifetimes(graph);
  std::vector<int64_t> bytes;
  for (size_t id = 0; id < lives.size(); ++id) {
    if (graph.storages[id].kind != StorageKind::kTemp) lives[id] = {};
    bytes.push_back(graph.storages[id].bytes);
  }
  return PlanArena(lives, bytes);
}

std::shared_ptr<char> NewArena(int64_t bytes) {
  void* data = std::aligned_alloc(kAlignment, RoundUp(std::max<int64_t>(bytes, 1), kAlignment));
  if (data == nullptr) throw std::bad_alloc();
  return std::shared_ptr<char>(static_cast<char*>(data), std::free);
}

char* ThreadArena(int64_t bytes) {
  thread_local Buffer buffer;
  if (buffer.bytes >= bytes && buffer.data != nullptr) return buffer.data;
  std::free(buffer.data);
  buffer.data = nullptr;
  int64_t alignment = bytes >= kHugePageFrom ? kHugePage : kAlignment;
  buffer.bytes = RoundUp(std::max<int64_t>(bytes, 1), alignment);
  buffer.data = static_cast<char*>(std::aligned_alloc(alignment, buffer.bytes));
  if (buffer.data == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) madvise(buffer.data, buffer.bytes, MADV_HUGEPAGE);
  return buffer.data;
}

}  // namespace layoutsel
