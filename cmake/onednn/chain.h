// Runs stages of a model one after the other, in one call from Python.
#ifndef LAYOUTSEL_ONEDNN_CHAIN_H_
#define LAYOUTSEL_ONEDNN_CHAIN_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "recording.h"

namespace layoutsel {

// Tensors have numbers, the slots; the inputs come first. Stage i calls functions[i] on the slots
// reads[i] and on weights[i], stores its results in writes[i] and frees the slots frees[i].
struct ChainParts {
  ffi::Array<ffi::Function> functions;
  ffi::Array<ffi::Function> recorded;  // the same on a machine with the recording's instrument
  ffi::Array<ffi::Any> weights;
  ffi::Array<ffi::Shape> reads, writes, frees;
  int64_t slots;
};

// One run at a time. The first one is recorded, and later ones repeat it if it can be repeated.
class Chain {
 public:
  // The slots `kept` are read after a run. `is_fresh`: they belong to its caller.
  Chain(const ChainParts& parts, std::vector<int64_t> kept, bool is_fresh);

  // Runs stages until `is_enough(stage)` is true, or all. The first run runs all, and asks no more
  // after that.
  template <typename IsEnough>
  void Run(ffi::PackedArgs inputs, IsEnough is_enough) {
    try {
      Start(inputs);
      bool goes_on = true;
      for (size_t stage = 0; stage < stages_.size() && (goes_on || IsRecording()); ++stage) {
        RunStage(stage);
        if (goes_on) goes_on = !is_enough(stage);
        Free(stage);
      }
      if (IsRecording()) EndRecording();
    } catch (...) {
      Release();
      throw;
    }
  }

  const std::vector<int64_t>& kept() const { return kept_; }

  // A slot after its stage.
  const ffi::Any& Value(int64_t slot) const {
    return is_repeated_ ? recording_->Value(numbers_[slot]) : values_[slot];
  }

  // Gives up the tensors of the last run.
  void Release();

  // Runs in parts, of a chain that repeats. Start() begins one.
  bool repeats() const { return state_ == State::kRepeats; }
  void Start(ffi::PackedArgs inputs);

  // Recorded calls of a stage, from the first up to the second.
  std::pair<int64_t, int64_t> CallsOf(size_t stage) const {
    return {stage == 0 ? 0 : stages_[stage - 1].end, stages_[stage].end};
  }

  // Does some of them; see Recording::RunUntil.
  bool RunUntil(int64_t begin, int64_t end, Cancellation* cancellation) {
    return recording_->RunUntil(begin, end, cancellation);
  }

  // Whether a slot has another tensor in every run.
  bool IsFresh(int64_t slot) const { return recording_->IsFresh(numbers_[slot]); }

 private:
  enum class State { kNew, kRecords, kRepeats, kDoesNotRepeat };

  struct Stage {
    ffi::Function function, recorded;
    ffi::Any weights;
    std::vector<int64_t> reads, writes, frees;
    int64_t end = 0;  // number of recorded calls up to its end
  };

  bool IsRecording() const { return state_ == State::kRecords; }
  void RunStage(size_t stage);
  void Call(const ffi::Function& function, Stage* stage);
  void Free(size_t stage);
  void EndRecording();

  std::vector<Stage> stages_;
  std::vector<int64_t> kept_;
  bool is_fresh_;
  State state_ = State::kNew;
  bool is_repeated_ = false;             // the last run
  std::vector<ffi::Any> values_;         // by slot
  std::vector<ffi::AnyView> arguments_;  // of the present call
  std::unique_ptr<Recording> recording_;
  std::vector<int64_t> numbers_;  // by slot: value of the recording
};

// Makes a function of the inputs that returns the slots `kept`, which then belong to its caller.
ffi::Function RunChain(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Function> recorded,
                       ffi::Array<ffi::Any> weights, ffi::Array<ffi::Shape> reads,
                       ffi::Array<ffi::Shape> writes, ffi::Array<ffi::Shape> frees, int64_t slots,
                       ffi::Shape kept);

// How many runs of chains in this process repeated a recording.
int64_t RepeatedRuns();

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_CHAIN_H_
