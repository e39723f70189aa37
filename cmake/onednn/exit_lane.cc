#include "exit_lane.h"

#include <tvm/ffi/error.h>

#include <string_view>

namespace layoutsel {

namespace {

ChainParts PartsOf(const ffi::Array<ffi::Any>& lane) {
  using Slots = ffi::Array<ffi::Shape>;
  using Functions = ffi::Array<ffi::Function>;
  return {
      lane[0].cast<Functions>(), lane[1].cast<Functions>(), lane[2].cast<ffi::Array<ffi::Any>>(),
      lane[3].cast<Slots>(),     lane[4].cast<Slots>(),     lane[5].cast<Slots>(),
      lane[6].cast<int64_t>()};
}

std::vector<std::vector<ExitTest>> TestsIn(const ffi::Array<ffi::Any>& lane) {
  std::vector<std::vector<ExitTest>> found;
  for (const ffi::Shape& one : lane[7].cast<ffi::Array<ffi::Shape>>()) {
    found.push_back(TestsOf(one));
  }
  return found;
}

std::vector<int64_t> NumbersIn(const ffi::Any& shape) {
  auto numbers = shape.cast<ffi::Shape>();
  return {numbers.begin(), numbers.end()};
}

std::vector<int64_t> Joined(std::vector<int64_t> first, const std::vector<int64_t>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace

ExitLane::ExitLane(const ffi::Array<ffi::Any>& parts, const std::vector<int64_t>& kept)
    : tests_(TestsIn(parts)),
      numbers_(NumbersIn(parts[8])),
      needs_(NumbersIn(parts[9])),
      chain_(PartsOf(parts), Joined(kept, SlotsOf(tests_)), false) {}

bool ExitLane::Record(ffi::PackedArgs inputs) {
  chain_.Run(inputs, [](size_t) { return false; });
  chain_.Release();
  return chain_.repeats();
}

void ExitLane::Start() {
  stage_ = kNone;
  stop_.begun = 0;
  __atomic_store_n(&stop_.is_cancelled, 0, __ATOMIC_RELAXED);
}

bool ExitLane::Begin(size_t stage, const LastUseful& last) {
  // Written before the comparison: one who changes the bound later sees that the stage has begun.
  stage_ = numbers_[stage];
  return numbers_[stage] <= last;
}

bool ExitLane::Run(int64_t begin, int64_t end) {
  Watching watching(&stop_);  // for partitions of several sub-graphs
  try {
    return chain_.RunUntil(begin, end, &stop_);
  } catch (const ffi::Error& error) {
    if (error.kind() == "Cancelled") return false;
    throw;
  }
}

void ExitLane::StopAfter(int64_t number) {
  if (stage_ > number) __atomic_store_n(&stop_.is_cancelled, 1, __ATOMIC_RELAXED);
}

}  // namespace layoutsel
