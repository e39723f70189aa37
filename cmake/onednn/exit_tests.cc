#include "exit_tests.h"

#include <tvm/ffi/container/tensor.h>

#include <cstring>

namespace layoutsel {

namespace {

const char* DataOf(const ffi::Any& value) {
  DLTensor* tensor = value.cast<DLTensor*>();
  return static_cast<const char*>(tensor->data) + tensor->byte_offset;
}

}  // namespace

double ExitTest::ScoreIn(const Chain& chain) const {
  return *reinterpret_cast<const float*>(DataOf(chain.Value(score)));
}

int64_t ExitTest::LabelIn(const Chain& chain) const {
  return *reinterpret_cast<const int64_t*>(DataOf(chain.Value(label)));
}

void ExitTest::CopyValues(const Chain& chain) const {
  DLTensor* tensor = chain.Value(values).cast<DLTensor*>();
  std::memcpy(copy, DataOf(chain.Value(values)), ffi::GetDataSize(*tensor));
}

std::vector<ExitTest> TestsOf(const ffi::Shape& numbers) {
  std::vector<ExitTest> found;
  for (size_t i = 0; i < numbers.size(); i += 5) {
    found.push_back({numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3],
                     reinterpret_cast<char*>(numbers[i + 4])});
  }
  return found;
}

std::vector<int64_t> SlotsOf(const std::vector<std::vector<ExitTest>>& tests) {
  std::vector<int64_t> found;
  for (const std::vector<ExitTest>& stage : tests) {
    for (const ExitTest& test : stage) {
      found.insert(found.end(), {test.values, test.score, test.label});
    }
  }
  return found;
}

}  // namespace layoutsel
