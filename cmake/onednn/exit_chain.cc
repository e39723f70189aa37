#include "exit_chain.h"

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>

#include <cmath>
#include <utility>
#include <vector>

namespace layoutsel {

namespace {

struct Test {
  int64_t exit;
  int64_t values;
  int64_t score;
  int64_t label;
};

struct Stage {
  ffi::Function function;
  ffi::Any weights;
  std::vector<int64_t> reads;
  std::vector<int64_t> writes;
  std::vector<int64_t> frees;
  std::vector<Test> tests;
};

std::vector<int64_t> Slots(const ffi::Shape& shape) { return {shape.begin(), shape.end()}; }

std::vector<Test> Tests(const ffi::Shape& shape) {
  std::vector<Test> found;
  for (size_t i = 0; i < shape.size(); i += 4) {
    found.push_back({shape[i], shape[i + 1], shape[i + 2], shape[i + 3]});
  }
  return found;
}

float Score(const ffi::Any& value) {
  ffi::Tensor tensor = value.cast<ffi::Tensor>();
  return *reinterpret_cast<const float*>(static_cast<const char*>(tensor.data_ptr()) +
                                         tensor.byte_offset());
}

void Run(const Stage& stage, std::vector<ffi::Any>* values, std::vector<ffi::AnyView>* arguments) {
  arguments->clear();
  for (int64_t slot : stage.reads) arguments->push_back((*values)[slot]);
  arguments->push_back(stage.weights);
  ffi::Any result;
  stage.function.CallPacked(arguments->data(), static_cast<int32_t>(arguments->size()), &result);
  // A stage of one result returns the tensor itself.
  auto several = result.as<ffi::Array<ffi::Any>>();
  size_t made = several ? several->size() : 1;
  if (made != stage.writes.size()) {
    TVM_FFI_THROW(ValueError) << "a stage returned " << made << " tensors; expected "
                              << stage.writes.size();
  }
  if (!several) {
    (*values)[stage.writes[0]] = std::move(result);
    return;
  }
  for (size_t i = 0; i < made; ++i) (*values)[stage.writes[i]] = (*several)[i];
}

}  // namespace

ffi::Function ExitChain(ffi::Array<ffi::Function> functions, ffi::Array<ffi::Any> weights,
                        ffi::Array<ffi::Shape> reads, ffi::Array<ffi::Shape> writes,
                        ffi::Array<ffi::Shape> frees, ffi::Array<ffi::Shape> tests, int64_t slots) {
  std::vector<Stage> stages;
  for (size_t i = 0; i < functions.size(); ++i) {
    stages.push_back({functions[i], weights[i], Slots(reads[i]), Slots(writes[i]), Slots(frees[i]),
                      Tests(tests[i])});
  }
  return ffi::Function::FromPacked(
      [stages = std::move(stages), slots](ffi::PackedArgs args, ffi::Any* answer) {
        auto thresholds = reinterpret_cast<const double*>(args[0].cast<int64_t>());
        std::vector<ffi::Any> values(slots);
        for (int i = 1; i < args.size(); ++i) values[i - 1] = args[i];
        std::vector<ffi::AnyView> arguments;
        bool has_nan = false;
        for (const Stage& stage : stages) {
          Run(stage, &values, &arguments);
          for (const Test& test : stage.tests) {
            double score = Score(values[test.score]);
            has_nan = has_nan || std::isnan(score);
            bool is_final = &test == &stages.back().tests.back();
            if (!is_final && !(score >= thresholds[test.exit])) continue;
            *answer =
                ffi::Array<ffi::Any>({test.exit, static_cast<int64_t>(has_nan), values[test.values],
                                      values[test.score], values[test.label]});
            return;
          }
          for (int64_t slot : stage.frees) values[slot] = nullptr;
        }
        TVM_FFI_THROW(ValueError) << "the last stage of a chain has no exit";
      });
}

}  // namespace layoutsel
