// A compiled partition: primitives, their memory, and the call that runs them.
#ifndef LAYOUTSEL_ONEDNN_PARTITION_H_
#define LAYOUTSEL_ONEDNN_PARTITION_H_

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <dnnl.hpp>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "arena.h"
#include "blueprint.h"
#include "graph.h"

namespace layoutsel {

// Primitives are made for a number of threads, and a partition for the one of its first call.
class Partition {
 public:
  explicit Partition(Graph graph);

  // Runs on (params..., results...), DLTensors all. Safe from several threads, one at a time.
  void Run(ffi::PackedArgs args);

  // The form in which the primitive wants weight `tensor`, as text, and its size.
  std::string PackedForm(int64_t tensor);
  int64_t PackedBytes(int64_t tensor);

  // Converts weight `tensor`, plain at `source`, into the form that PackedForm says.
  void Pack(int64_t tensor, const void* source, void* destination);

  // JSON: sub-graph, operator, primitive, implementation and, where profiled, microseconds.
  std::string Steps();

 private:
  // A weight that is computed at run time: brought into the form that the primitive wants before
  // each use, in the scratchpad.
  struct Conversion {
    dnnl::reorder reorder;
    dnnl::memory from, to;
  };

  struct Step {
    dnnl::primitive primitive;
    std::vector<Conversion> conversions;
    std::vector<dnnl_exec_arg_t> args;
    std::string implementation;
    double total_us = 0;
    double least_us = std::numeric_limits<double>::infinity();
    int64_t calls = 0;
  };

  // A memory object that lies in a storage at an offset.
  struct Placed {
    dnnl::memory memory;
    int64_t offset;
  };

  // A constant weight that arrives in another form than the primitive wants; converted on first
  // use.
  struct Repacked {
    dnnl::memory source;
    dnnl::memory destination;
    const void* seen = nullptr;
  };

  void Compile();
  void CompileNode(const Node& node, int64_t* scratchpad_bytes);
  dnnl::memory MemoryOf(int64_t tensor, Step* step);
  void PlaceScratch(Step* step, const dnnl::memory::desc& scratchpad, int64_t* scratchpad_bytes);
  void BindArgument(int64_t storage, void* data);
  void BindArena();
  void Execute(size_t step);

  Graph graph_;
  ArenaPlan plan_;
  std::mutex mutex_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  bool is_compiled_ = false;
  std::vector<Step> steps_;
  std::unordered_map<int64_t, dnnl::memory> memories_;         // by tensor
  std::unordered_map<int64_t, dnnl::memory::desc> preferred_;  // by tensor
  std::unordered_map<int64_t, Repacked> repacked_;             // by storage
  std::vector<std::vector<Placed>> placed_;                    // by storage
  std::vector<Placed> scratchpads_;                            // offsets behind the arena's temps
  std::vector<void*> bound_;                                   // by storage
  std::vector<std::pair<int64_t, int64_t>> arguments_;         // (argument, storage)
  int64_t arena_bytes_ = 0;
  char* arena_ = nullptr;
};

// A partition for every number of threads that it is called with, kept.
class Partitions {
 public:
  explicit Partitions(std::string text);
  ~Partitions();
  Partitions(const Partitions&) = delete;
  Partitions& operator=(const Partitions&) = delete;

  const std::string& text() const { return text_; }

  // The one for the calling thread's cache and as many threads as OpenMP has in it.
  std::shared_ptr<Partition> Current();

  // Gives up those of a cache.
  void Drop(int64_t cache);

 private:
  std::string text_;
  std::mutex mutex_;
  // By cache and number of threads.
  std::map<std::pair<int64_t, int>, std::shared_ptr<Partition>> made_;
};

// What the calling thread runs from now on uses the primitives of the cache `id`, made on use; 0 is
// the cache that all threads share unless they say otherwise. Partitions run one at a time within a
// cache, and at once in different ones.
void UseCache(int64_t id);

// Gives up the primitives of a cache, in all partitions of this process.
void DropCache(int64_t id);

// How many partitions had their primitives made in this process.
int64_t Compilations();

// When on, every run synchronises and adds up the time of each step.
void SetProfiling(bool on);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_PARTITION_H_
