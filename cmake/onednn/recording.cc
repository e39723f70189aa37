#include "recording.h"

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "arena.h"

namespace layoutsel {

namespace {

constexpr int64_t kNone = -1;

// Larger networks gain less than a percent, and would hold this memory between runs.
constexpr int64_t kMostBytes = 8 << 20;

constexpr std::string_view kAllocStorage = "vm.builtin.alloc_storage";
constexpr std::string_view kAllocTensor = "vm.builtin.alloc_tensor";

// The machine's functions whose results are new values.
constexpr std::string_view kMakers[] = {kAllocStorage, kAllocTensor, "vm.builtin.reshape"};

// Those that only pass on what they are given, or check it.
constexpr std::string_view kPassing[] = {
    "vm.builtin.check_tensor_info", "vm.builtin.check_tuple_info", "vm.builtin.copy",
    "vm.builtin.make_tuple",        "vm.builtin.match_shape",      "vm.builtin.null_value",
    "vm.builtin.tuple_getitem",
};

template <typename Names>
bool Contains(const Names& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string NameOf(ffi::AnyView name) {
  if (auto text = name.try_cast<const char*>()) return *text;
  return name.cast<std::string>();
}

const void* AddressOf(const ffi::Any& value) {
  auto object = value.as<ffi::ObjectRef>();
  return object ? object->get() : nullptr;
}

// Memory of intermediates, which tensors share.
class InArena {
 public:
  InArena(std::shared_ptr<char> arena, int64_t offset)
      : arena_(std::move(arena)), offset_(offset) {}
  void AllocData(DLTensor* tensor) { tensor->data = arena_.get() + offset_; }
  void FreeData(DLTensor*) {}

 private:
  std::shared_ptr<char> arena_;
  int64_t offset_;
};

}  // namespace

thread_local Recording* Recording::current_ = nullptr;

Recording::Recording(ffi::PackedArgs inputs) : inputs_(inputs.size()) {
  for (int i = 0; i < inputs.size(); ++i) NumberOf(ffi::Any(inputs[i]));
  // One tensor for two inputs, or none, is no value of its own.
  is_repeatable_ = static_cast<int64_t>(values_.size()) == inputs_;
}

ffi::Function Recording::Instrument() {
  return ffi::Function::FromPacked([](ffi::PackedArgs seen, ffi::Any*) {
    bool is_before = seen[2].cast<bool>();
    if (is_before && !IsBuiltin(seen[1])) BeginSubgraph();
    if (!is_before && current_ != nullptr) current_->Add(seen);
  });
}

int64_t Recording::NumberOf(const ffi::Any& object) {
  auto [place, is_new] = numbers_.emplace(AddressOf(object), values_.size());
  if (is_new) {
    values_.push_back(object);
    producers_.push_back(kNone);
  }
  return place->second;
}

// `seen`: function, its name, false, result, arguments.
void Recording::Add(ffi::PackedArgs seen) {
  constexpr int kFirst = 4;
  std::string name = NameOf(seen[1]);
  if (Contains(kPassing, name)) return;
  bool is_maker = Contains(kMakers, name);
  auto function = seen[0].as<ffi::Function>();
  ffi::Any result(seen[3]);
  // A kernel writes into its arguments; other results may depend on the values of tensors.
  if (!function || is_maker == (result == nullptr) || (!is_maker && IsBuiltin(seen[1]))) {
    is_repeatable_ = false;
    return;
  }
  Call call{*function, {}, {}, kNone, !is_maker, {}, {}};
  for (int i = kFirst; i < seen.size(); ++i) {
    ffi::Any argument(seen[i]);
    auto known = numbers_.find(AddressOf(argument));
    bool is_value = AddressOf(argument) != nullptr && known != numbers_.end();
    call.uses.push_back(is_value ? known->second : kNone);
    if (argument.as<ffi::Array<ffi::Any>>()) is_repeatable_ = false;  // may hold values
    call.arguments.push_back(std::move(argument));
  }
  if (is_maker) {
    call.result = NumberOf(result);
    producers_[call.result] = calls_.size();
  }
  calls_.push_back(std::move(call));
}

void Recording::MarkProducers(int64_t value) {
  if (value < inputs_ || producers_[value] == kNone || fresh_[value]) return;
  fresh_[value] = 1;
  for (int64_t use : calls_[producers_[value]].uses) {
    if (use != kNone) MarkProducers(use);
  }
}

bool Recording::Finish(const std::vector<int64_t>& kept, bool is_fresh) {
  if (!is_repeatable_) return false;
  fresh_.assign(values_.size(), 0);
  std::fill(fresh_.begin(), fresh_.begin() + inputs_, 1);
  if (is_fresh) std::for_each(kept.begin(), kept.end(), [this](int64_t v) { MarkProducers(v); });
  for (const Call& call : calls_) {
    if (call.is_kernel) continue;
    for (int64_t use : call.uses) {
      if (use != kNone && fresh_[use]) fresh_[call.result] = 1;
    }
  }
  if (!PlaceIntermediates(kept)) return false;
  Prepare(kept);
  Stop();
  return true;
}

// Gives intermediates whose lifetimes do not overlap the same memory.
bool Recording::PlaceIntermediates(const std::vector<int64_t>& kept) {
  struct Place {
    int64_t storage = kNone;
    int64_t offset = 0;
  };
  std::vector<Place> places(values_.size());
  std::vector<Lifetime> lives(values_.size());
  std::vector<int64_t> bytes(values_.size(), 0);
  auto is_placed = [&](int64_t value) { return value != kNone && places[value].storage != kNone; };
  for (int64_t time = 0; time < size(); ++time) {
    const Call& call = calls_[time];
    for (int64_t use : call.uses) {
      if (is_placed(use)) lives[places[use].storage].Touch(time);
    }
    if (call.is_kernel || fresh_[call.result]) continue;
    int64_t source = call.uses[0];
    Place& place = places[call.result];
    if (source == kNone) {
      // A storage, or another form of a constant.
      if (!values_[call.result].as<ffi::Tensor>()) place.storage = call.result;
    } else if (is_placed(source)) {
      place = places[source];
      auto offset = call.arguments[1].as<int64_t>();  // of a tensor in its storage
      auto tensor = values_[call.result].cast<ffi::Tensor>();
      if (offset) place.offset += *offset;
      int64_t end = place.offset + static_cast<int64_t>(ffi::GetDataSize(tensor));
      bytes[place.storage] = std::max(bytes[place.storage], end);
    }
  }
  for (int64_t value : kept) {
    if (is_placed(value)) lives[places[value].storage].Touch(size());
  }
  ArenaPlan plan = PlanArena(lives, bytes);
  if (plan.bytes > kMostBytes) return false;
  std::shared_ptr<char> arena = NewArena(plan.bytes);
  for (size_t value = 0; value < values_.size(); ++value) {
    auto [storage, offset] = places[value];
    if (storage == kNone) continue;
    auto old = values_[value].as<ffi::Tensor>();
    values_[value] = nullptr;
    if (!old) continue;
    values_[value] = ffi::Tensor::FromNDAlloc(InArena(arena, plan.offsets[storage] + offset),
                                              old->shape(), old->dtype(), old->device());
  }
  return true;
}

// Finds the calls that every run does, and their arguments.
void Recording::Prepare(const std::vector<int64_t>& kept) {
  std::vector<char> is_needed(values_.size(), 0);
  for (int64_t value : kept) is_needed[value] = 1;
  for (auto call = calls_.rbegin(); call != calls_.rend(); ++call) {
    call->runs = call->is_kernel || (fresh_[call->result] && is_needed[call->result]);
    if (!call->runs) continue;
    for (size_t i = 0; i < call->uses.size(); ++i) {
      int64_t use = call->uses[i];
      if (use == kNone) continue;
      is_needed[use] = 1;
      if (fresh_[use]) {
        call->places.emplace_back(i, use);
        call->arguments[i] = nullptr;
      } else {
        call->arguments[i] = values_[use];
      }
    }
    call->views.assign(call->arguments.begin(), call->arguments.end());
  }
  for (Call& call : calls_) {
    if (!call.runs) call.arguments.clear();
  }
  numbers_.clear();
}

void Recording::Start(ffi::PackedArgs inputs) {
  if (inputs.size() != inputs_) {
    TVM_FFI_THROW(ValueError) << "got " << inputs.size() << " inputs; expected " << inputs_;
  }
  for (int64_t i = 0; i < inputs_; ++i) values_[i] = inputs[i];
}

void Recording::Run(int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (!calls_[i].runs) continue;
    if (calls_[i].is_kernel) BeginSubgraph();
    Do(&calls_[i]);
  }
}

bool Recording::RunUntil(int64_t begin, int64_t end, Cancellation* cancellation) {
  for (int64_t i = begin; i < end; ++i) {
    Call& call = calls_[i];
    if (!call.runs) continue;
    if (__atomic_load_n(&cancellation->is_cancelled, __ATOMIC_RELAXED) != 0) return false;
    if (call.is_kernel) {
      // No other thread adds: an atomic addition would take longer than the rest of this.
      int64_t before = __atomic_load_n(&cancellation->begun, __ATOMIC_RELAXED);
      __atomic_store_n(&cancellation->begun, before + 1, __ATOMIC_RELAXED);
    }
    Do(&call);
  }
  return true;
}

void Recording::Do(Call* call) {
  ffi::Any result;
  for (auto& [argument, value] : call->places) call->views[argument] = values_[value];
  call->function.CallPacked(call->views.data(), static_cast<int32_t>(call->views.size()), &result);
  if (call->result != kNone) values_[call->result] = std::move(result);
}

void Recording::Stop() {
  for (size_t value = 0; value < values_.size(); ++value) {
    if (fresh_[value]) values_[value] = nullptr;
  }
}

}  // namespace layoutsel
