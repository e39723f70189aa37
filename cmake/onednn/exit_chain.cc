#include "exit_chain.h"

#include <tvm/ffi/error.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "chain.h"
#include "inputs.h"
#include "threads.h"

namespace layoutsel {

namespace {

struct Test {
  int64_t exit;
  int64_t values;
  int64_t score;
  int64_t label;
  char* copy;  // of the values
};

std::vector<Test> Tests(const ffi::Shape& shape) {
  std::vector<Test> found;
  for (size_t i = 0; i < shape.size(); i += 5) {
    found.push_back({shape[i], shape[i + 1], shape[i + 2], shape[i + 3],
                     reinterpret_cast<char*>(shape[i + 4])});
  }
  return found;
}

const char* DataOf(const ffi::Any& value) {
  DLTensor* tensor = value.cast<DLTensor*>();
  return static_cast<const char*>(tensor->data) + tensor->byte_offset;
}

// Stages with the tests after each of them, and where the answer goes.
class Exits {
 public:
  Exits(const ChainParts& parts, const ffi::Array<ffi::Shape>& tests,
        const ffi::Array<ffi::Tensor>& inputs, int64_t threads, int64_t outcome)
      : inputs_(inputs),
        threads_(static_cast<int>(threads)),
        outcome_(reinterpret_cast<ExitOutcome*>(outcome)) {
    std::vector<int64_t> kept;
    for (const ffi::Shape& one : tests) {
      tests_.push_back(Tests(one));
      for (const Test& test : tests_.back()) {
        kept.insert(kept.end(), {test.values, test.score, test.label});
      }
    }
    chain_ = std::make_unique<Chain>(parts, std::move(kept), false);
  }

  bool Answer(ffi::PackedArgs args) {
    if (!inputs_.Take(args, 1)) return false;
    auto thresholds = reinterpret_cast<const double*>(args[0].cast<int64_t>());
    RequestedThreads threads(threads_);
    outcome_->has_nan = 0;
    chain_->Run(inputs_.taken(), [&](size_t stage) {
      for (const Test& test : tests_[stage]) {
        if (IsAnswer(test, thresholds)) return true;
      }
      return false;
    });
    chain_->Release();
    return true;
  }

 private:
  bool IsAnswer(const Test& test, const double* thresholds) {
    double score = *reinterpret_cast<const float*>(DataOf(chain_->Value(test.score)));
    if (std::isnan(score)) outcome_->has_nan = 1;
    bool is_final = &test == &tests_.back().back();
    if (!is_final && !(score >= thresholds[test.exit])) return false;
    outcome_->exit = test.exit;
    outcome_->score = score;
    outcome_->label = *reinterpret_cast<const int64_t*>(DataOf(chain_->Value(test.label)));
    DLTensor* values = chain_->Value(test.values).cast<DLTensor*>();
    std::memcpy(test.copy, DataOf(chain_->Value(test.values)), ffi::GetDataSize(*values));
    return true;
  }

  std::vector<std::vector<Test>> tests_;  // by stage
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
