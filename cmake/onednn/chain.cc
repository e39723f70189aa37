#include "chain.h"

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>

#include <algorithm>
#include <atomic>

namespace layoutsel {

namespace {

std::atomic<int64_t> repeated_runs{0};

std::vector<int64_t> Slots(const ffi::Shape& shape) { return {shape.begin(), shape.end()}; }

}  // namespace

int64_t RepeatedRuns() { return repeated_runs; }

Chain::Chain(const ChainParts& parts, std::vector<int64_t> kept, bool is_fresh)
    : kept_(std::move(kept)), is_fresh_(is_fresh), values_(parts.slots) {
  for (size_t i = 0; i < parts.functions.size(); ++i) {
    stages_.push_back({parts.functions[i], parts.recorded[i], parts.weights[i],
                       Slots(parts.reads[i]), Slots(parts.writes[i]), Slots(parts.frees[i])});
  }
}

void Chain::Start(ffi::PackedArgs inputs) {
  is_repeated_ = state_ == State::kRepeats;
  if (is_repeated_) {
    ++repeated_runs;
    recording_->Start(inputs);
    return;
  }
  for (int i = 0; i < inputs.size(); ++i) values_[i] = inputs[i];
  if (state_ == State::kNew) {
    recording_ = std::make_unique<Recording>(inputs);
    state_ = State::kRecords;
  }
}

void Chain::RunStage(size_t i) {
  Stage& stage = stages_[i];
  if (state_ == State::kRepeats) {
    auto [begin, end] = CallsOf(i);
    recording_->Run(begin, end);
  } else if (IsRecording()) {
    recording_->During([&] { Call(stage.recorded, &stage); });
    stage.end = recording_->size();
  } else {
    Call(stage.function, &stage);
  }
}

void Chain::Call(const ffi::Function& function, Stage* stage) {
  arguments_.clear();
  for (int64_t slot : stage->reads) arguments_.push_back(values_[slot]);
  arguments_.push_back(stage->weights);
  ffi::Any result;
  function.CallPacked(arguments_.data(), static_cast<int32_t>(arguments_.size()), &result);
  // A stage of one result returns the tensor itself.
  auto several = result.as<ffi::Array<ffi::Any>>();
  size_t made = several ? several->size() : 1;
  if (made < stage->writes.size()) {
    TVM_FFI_THROW(ValueError) << "a stage returned " << made << " tensors; expected "
                              << stage->writes.size();
  }
  // Outputs for verification alone come last, and no list of outputs has them.
  for (size_t i = stage->writes.size(); i < made; ++i) {
    kept_.push_back(values_.size());
    stage->writes.push_back(values_.size());
    values_.emplace_back();
  }
  for (size_t i = 0; i < made; ++i) {
    values_[stage->writes[i]] = several ? (*several)[i] : std::move(result);
  }
}

void Chain::Free(size_t stage) {
  if (state_ != State::kDoesNotRepeat) return;
  for (int64_t slot : stages_[stage].frees) values_[slot] = nullptr;
}

void Chain::EndRecording() {
  numbers_.clear();  // of a recording that failed at its end
  for (const ffi::Any& value : values_) numbers_.push_back(recording_->NumberOf(value));
  std::vector<int64_t> kept;
  for (int64_t slot : kept_) kept.push_back(numbers_[slot]);
  bool repeats = recording_->Finish(kept, is_fresh_);
  if (!repeats) recording_.reset();
  state_ = repeats ? State::kRepeats : State::kDoesNotRepeat;
}

void Chain::Release() {
  if (is_repeated_) recording_->Stop();
  if (IsRecording()) {
    // A run that failed leaves nothing to repeat: the next one is recorded instead.
    recording_.reset();
    state_ = State::kNew;
  }
  std::fill(values_.begin(), values_.end(), nullptr);
}

ffi::Function RunChain(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Function> recorded,
                       ffi::Array<ffi::Any> weights, ffi::Array<ffi::Shape> reads,
                       ffi::Array<ffi::Shape> writes, ffi::Array<ffi::Shape> frees, int64_t slots,
                       ffi::Shape kept) {
  ChainParts parts{functions, recorded, weights, reads, writes, frees, slots};
  auto chain = std::make_shared<Chain>(parts, Slots(kept), true);
  return ffi::Function::FromPacked([chain](ffi::PackedArgs inputs, ffi::Any* results) {
    chain->Run(inputs, [](size_t) { return false; });
    std::vector<ffi::Any> found;
    for (int64_t slot : chain->kept()) found.push_back(chain->Value(slot));
    chain->Release();
    *results = ffi::Array<ffi::Any>(found.begin(), found.end());
  });
}

}  // namespace layoutsel
