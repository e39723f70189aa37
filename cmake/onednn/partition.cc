#include "partition.h"

#include <dnnl_debug.h>
#include <omp.h>

#include <atomic>
#include <chrono>
#include <set>
#include <sstream>

#include "cancellation.h"
#include "descriptors.h"

namespace layoutsel {

using dnnl::memory;

namespace {

std::atomic<bool> profiling{false};
std::atomic<int64_t> compilations{0};
thread_local int64_t current_cache = 0;

struct Living {
  std::mutex mutex;
  std::set<Partitions*> all;
};

// Not destroyed: modules may outlive static objects.
Living& AllPartitions() {
  static Living* living = new Living;
  return *living;
}

dnnl::engine& CpuEngine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

constexpr int64_t kCacheLine = 64;

int64_t Aligned(int64_t bytes) { return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine; }

void* DataOf(const DLTensor* tensor) {
  return static_cast<char*>(tensor->data) + tensor->byte_offset;
}

}  // namespace

void SetProfiling(bool on) { profiling = on; }

int64_t Compilations() { return compilations; }

void UseCache(int64_t id) { current_cache = id; }

void DropCache(int64_t id) {
  Living& living = AllPartitions();
  std::lock_guard<std::mutex> lock(living.mutex);
  for (Partitions* each : living.all) each->Drop(id);
}

Partitions::Partitions(std::string text) : text_(std::move(text)) {
  Living& living = AllPartitions();
  std::lock_guard<std::mutex> lock(living.mutex);
  living.all.insert(this);
}

Partitions::~Partitions() {
  Living& living = AllPartitions();
  std::lock_guard<std::mutex> lock(living.mutex);
  living.all.erase(this);
}

void Partitions::Drop(int64_t cache) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto first = made_.lower_bound({cache, 0});
  made_.erase(first, made_.lower_bound({cache + 1, 0}));
}

std::shared_ptr<Partition> Partitions::Current() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<Partition>& partition = made_[{current_cache, omp_get_max_threads()}];
  if (partition == nullptr) partition = std::make_shared<Partition>(ParseGraph(text_));
  return partition;
}

Partition::Partition(Graph graph)
    : graph_(std::move(graph)),
      plan_(PlanArena(graph_)),
      engine_(CpuEngine()),
      stream_(engine_, dnnl::stream::flags::in_order) {
  for (size_t i = 0; i < graph_.storages.size(); ++i) {
    const Storage& storage = graph_.storages[i];
    if (storage.kind == StorageKind::kInput || storage.kind == StorageKind::kWeight) {
      arguments_.emplace_back(storage.index, i);
    } else if (storage.kind == StorageKind::kOutput) {
      arguments_.emplace_back(graph_.num_params + storage.index, i);
    }
  }
}

void Partition::Compile() {
  if (is_compiled_) return;
  placed_.assign(graph_.storages.size(), {});
  bound_.assign(graph_.storages.size(), nullptr);
  int64_t scratchpad_bytes = 0;
  for (const Node& node : graph_.nodes) CompileNode(node, &scratchpad_bytes);
  for (size_t i = 0; i < graph_.storages.size(); ++i) {
    Storage& storage = graph_.storages[i];
    if (storage.kind == StorageKind::kConst) BindArgument(i, storage.data.data());
  }
  arena_bytes_ = plan_.bytes + scratchpad_bytes;
  is_compiled_ = true;
  ++compilations;
}

void Partition::CompileNode(const Node& node, int64_t* scratchpad_bytes) {
  Blueprint blueprint = Design(graph_, node, engine_);
  for (auto& [tensor, form] : blueprint.preferred) preferred_[tensor] = form;
  Step step;
  step.implementation = blueprint.implementation;
  try {
    step.primitive = dnnl::primitive(blueprint.desc.get());
  } catch (const dnnl::error& error) {
    TVM_FFI_THROW(RuntimeError) << node.Where() << ": oneDNN " << error.what();
  }
  for (auto& [role, tensor] : blueprint.arguments) {
    step.args.push_back({role, MemoryOf(tensor, &step).get()});
  }
  PlaceScratch(&step, blueprint.desc.scratchpad_desc(), scratchpad_bytes);
  steps_.push_back(std::move(step));
}

// Places what a step needs while it runs: converted weights, then the primitive's own scratchpad.
void Partition::PlaceScratch(Step* step, const memory::desc& scratchpad,
                             int64_t* scratchpad_bytes) {
  int64_t bytes = 0;
  auto place = [&](const memory& area) {
    scratchpads_.push_back({area, bytes});
    bytes = Aligned(bytes + static_cast<int64_t>(area.get_desc().get_size()));
  };
  for (const Conversion& conversion : step->conversions) place(conversion.to);
  if (scratchpad.get_size() > 0) {
    memory area(scratchpad, engine_, nullptr);
    step->args.push_back({DNNL_ARG_SCRATCHPAD, area.get()});
    place(area);
  }
  *scratchpad_bytes = std::max(*scratchpad_bytes, bytes);
}

dnnl::memory Partition::MemoryOf(int64_t id, Step* step) {
  auto known = memories_.find(id);
  if (known != memories_.end()) return known->second;
  const Tensor& tensor = graph_.tensors[id];
  auto form = preferred_.find(id);
  memory::desc desc = form == preferred_.end() ? Describe(tensor) : form->second;
  memory out(desc, engine_, nullptr);
  memories_.emplace(id, out);
  bool as_preferred = form == preferred_.end() || tensor.packed == ToText(desc);
  if (!as_preferred) {
    memory::desc arrives =
        tensor.packed.empty() ? DescribePlain(tensor) : FromText(tensor.packed, tensor);
    if (arrives != desc && graph_.storages[tensor.storage].kind != StorageKind::kWeight) {
      memory from(arrives, engine_, nullptr);
      step->conversions.push_back({dnnl::reorder(from, out), from, out});
      placed_[tensor.storage].push_back({from, tensor.offset});
      return out;
    }
    if (arrives != desc) {
      out = memory(desc, engine_);
      memories_[id] = out;
      repacked_[tensor.storage] = {memory(arrives, engine_, nullptr), out, nullptr};
      return out;
    }
  }
  placed_[tensor.storage].push_back({out, tensor.offset});
  return out;
}

void Partition::BindArgument(int64_t storage, void* data) {
  if (bound_[storage] == data) return;
  bound_[storage] = data;
  for (Placed& placed : placed_[storage]) {
    placed.memory.set_data_handle(static_cast<char*>(data) + placed.offset);
  }
  auto repacked = repacked_.find(storage);
  if (repacked == repacked_.end()) return;
  repacked->second.source.set_data_handle(data);
  dnnl::reorder(repacked->second.source, repacked->second.destination)
      .execute(stream_, repacked->second.source, repacked->second.destination);
  stream_.wait();
}

void Partition::BindArena() {
  char* arena = ThreadArena(arena_bytes_);
  if (arena == arena_) return;
  arena_ = arena;
  for (size_t i = 0; i < graph_.storages.size(); ++i) {
    if (plan_.offsets[i] >= 0) BindArgument(i, arena + plan_.offsets[i]);
  }
  for (Placed& area : scratchpads_) {
    area.memory.set_data_handle(arena + plan_.bytes + area.offset);
  }
}

void Partition::Execute(size_t i) {
  Step& step = steps_[i];
  for (Conversion& conversion : step.conversions) {
    conversion.reorder.execute(stream_, conversion.from, conversion.to);
  }
  dnnl_status_t status = dnnl_primitive_execute(
      step.primitive.get(), stream_.get(), static_cast<int>(step.args.size()), step.args.data());
  if (status != dnnl_success) {
    TVM_FFI_THROW(RuntimeError) << graph_.nodes[i].Where() << ": oneDNN could not execute "
                                << step.implementation << " (status " << dnnl_status2str(status)
                                << ")";
  }
}

void Partition::Run(ffi::PackedArgs args) {
  std::lock_guard<std::mutex> lock(mutex_);
  Compile();
  if (args.size() != graph_.num_params + graph_.num_outputs) {
    TVM_FFI_THROW(ValueError) << graph_.symbol << ": got " << args.size() << " arguments; expected "
                              << graph_.num_params << " params and " << graph_.num_outputs
                              << " results";
  }
  for (auto& [argument, storage] : arguments_) {
    BindArgument(storage, DataOf(args[argument].cast<DLTensor*>()));
  }
  BindArena();
  if (!profiling) {
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (i > 0) BeginSubgraph();  // the first began with the call
      Execute(i);
    }
    return;
  }
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (i > 0) BeginSubgraph();
    auto start = std::chrono::steady_clock::now();
    Execute(i);
    std::chrono::duration<double, std::micro> passed = std::chrono::steady_clock::now() - start;
    steps_[i].total_us += passed.count();
    steps_[i].least_us = std::min(steps_[i].least_us, passed.count());
    steps_[i].calls += 1;
  }
}

std::string Partition::PackedForm(int64_t tensor) {
  std::lock_guard<std::mutex> lock(mutex_);
  Compile();
  return ToText(preferred_.at(tensor));
}

int64_t Partition::PackedBytes(int64_t tensor) {
  std::lock_guard<std::mutex> lock(mutex_);
  Compile();
  return preferred_.at(tensor).get_size();
}

void Partition::Pack(int64_t tensor, const void* source, void* destination) {
  std::lock_guard<std::mutex> lock(mutex_);
  Compile();
  memory from(DescribePlain(graph_.tensors[tensor]), engine_, const_cast<void*>(source));
  memory to(preferred_.at(tensor), engine_, destination);
  dnnl::reorder(from, to).execute(stream_, from, to);
  stream_.wait();
}

std::string Partition::Steps() {
  std::lock_guard<std::mutex> lock(mutex_);
  Compile();
  std::ostringstream out;
  out << '[';
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Node& node = graph_.nodes[i];
    const Step& step = steps_[i];
    out << (i ? ",\n" : "") << "{\"subgraph\":\"" << node.subgraph << "\",\"operator\":\""
        << node.operator_name << "\",\"primitive\":\"" << node.op << "\",\"implementation\":\""
        << step.implementation << "\",\"calls\":" << step.calls
        << ",\"us\":" << (step.calls ? step.total_us / step.calls : 0.0)
        << ",\"least_us\":" << (step.calls ? step.least_us : 0.0) << '}';
  }
  out << ']';
  return out.str();
}

}  // namespace layoutsel
