#include "lane_inputs.h"

#include <cstring>
#include <memory>
#include <utility>

#include "arena.h"

namespace layoutsel {

namespace {

// Memory of one tensor.
struct Memory {
  void AllocData(DLTensor* tensor) {
    data = NewArena(static_cast<int64_t>(ffi::GetDataSize(*tensor)));
    tensor->data = data.get();
  }
  void FreeData(DLTensor*) {}
  std::shared_ptr<char> data;
};

}  // namespace

LaneInputs::LaneInputs(const ffi::Shape& sources, const ffi::Array<ffi::Tensor>& inputs)
    : sources_(sources.begin(), sources.end()),
      inputs_(static_cast<int64_t>(inputs.size())),
      values_(sources_.size()),
      views_(sources_.size()) {
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (!IsInput(sources_[i])) continue;
    ffi::Tensor like = inputs[sources_[i]];
    Give(i, ffi::Tensor::FromNDAlloc(Memory{}, like.shape(), like.dtype(), like.device()));
  }
}

std::vector<int64_t> LaneInputs::Taps() const {
  std::vector<int64_t> found;
  for (int64_t slot : sources_) {
    if (!IsInput(slot)) found.push_back(slot);
  }
  return found;
}

bool LaneInputs::TakeTaps(const Chain& trunk) {
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (IsInput(sources_[i])) continue;
    if (trunk.IsFresh(sources_[i])) return false;
    Give(i, trunk.Value(sources_[i]));
  }
  return true;
}

void LaneInputs::Copy(ffi::PackedArgs inputs) {
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (!IsInput(sources_[i])) continue;
    DLTensor* from = inputs[static_cast<int>(sources_[i])].cast<DLTensor*>();
    DLTensor* to = values_[i].cast<DLTensor*>();
    std::memcpy(to->data, static_cast<const char*>(from->data) + from->byte_offset,
                ffi::GetDataSize(*to));
  }
}

void LaneInputs::Give(size_t i, ffi::Any value) {
  values_[i] = std::move(value);
  views_[i] = values_[i];
}

}  // namespace layoutsel
