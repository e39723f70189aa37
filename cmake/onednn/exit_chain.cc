#include "exit_chain.h"

#include <tvm/ffi/error.h>

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "chain.h"
#include "exit_tests.h"
#include "inputs.h"
#include "threads.h"

namespace layoutsel {

namespace {

// Stages with the tests after each of them, and where the answer goes.
class Exits {
 public:
  Exits(const ChainParts& parts, const ffi::Array<ffi::Shape>& tests,
        const ffi::Array<ffi::Tensor>& inputs, int64_t threads, int64_t outcome)
      : inputs_(inputs),
        threads_(static_cast<int>(threads)),
        outcome_(reinterpret_cast<ExitOutcome*>(outcome)) {
    for (const ffi::Shape& one : tests) tests_.push_back(TestsOf(one));
    chain_ = std::make_unique<Chain>(parts, SlotsOf(tests_), false);
  }

  bool Answer(ffi::PackedArgs args) {
    if (!inputs_.Take(args, 1)) return false;
    auto thresholds = reinterpret_cast<const double*>(args[0].cast<int64_t>());
    RequestedThreads threads(threads_);
    outcome_->has_nan = 0;
    chain_->Run(inputs_.taken(), [&](size_t stage) {
      for (const ExitTest& test : tests_[stage]) {
        if (IsAnswer(test, thresholds)) return true;
      }
      return false;
    });
    chain_->Release();
    return true;
  }

 private:
  bool IsAnswer(const ExitTest& test, const double* thresholds) {
    double score = test.ScoreIn(*chain_);
    if (std::isnan(score)) outcome_->has_nan = 1;
    bool is_final = &test == &tests_.back().back();
    if (!is_final && !(score >= thresholds[test.exit])) return false;
    outcome_->exit = test.exit;
    outcome_->score = score;
    outcome_->label = test.LabelIn(*chain_);
    outcome_->is_early = !is_final;
    test.CopyValues(*chain_);
    return true;
  }

  std::vector<std::vector<ExitTest>> tests_;  // by stage
  std::unique_ptr<Chain> chain_;
  Inputs inputs_;
  int threads_;
  ExitOutcome* outcome_;
};

}  // namespace

ffi::Function ExitChain(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Function> recorded,
                        ffi::Array<ffi::Any> weights, ffi::Array<ffi::Shape> reads,
                        ffi::Array<ffi::Shape> writes, ffi::Array<ffi::Shape> frees, int64_t slots,
                        ffi::Array<ffi::Shape> tests, ffi::Array<ffi::Tensor> inputs,
                        int64_t threads, int64_t outcome) {
  ChainParts parts{functions, recorded, weights, reads, writes, frees, slots};
  if (tests.empty() || tests.back().empty()) {
    TVM_FFI_THROW(ValueError) << "the last stage of a chain has no exit";
  }
  auto exits = std::make_shared<Exits>(parts, tests, inputs, threads, outcome);
  return ffi::Function::FromPacked(
      [exits](ffi::PackedArgs args, ffi::Any* result) { *result = exits->Answer(args); });
}

}  // namespace layoutsel
