// Results of exits within a chain of stages, and the answer that one of them is.
#ifndef LAYOUTSEL_ONEDNN_EXIT_TESTS_H_
#define LAYOUTSEL_ONEDNN_EXIT_TESTS_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>

#include <cstdint>
#include <vector>

#include "chain.h"

namespace layoutsel {

// The answer of an exit. Must match layoutsel/exits/exit_chain.py.
struct ExitOutcome {
  int64_t exit;
  int64_t label;
  double score;
  int64_t has_nan;   // 1 if any score was not a number
  int64_t is_early;  // 1 if the last exit had no result yet
};

// Where the results of an exit lie after the stage that completes it.
struct ExitTest {
  int64_t exit;
  int64_t values;  // slots
  int64_t score;
  int64_t label;
  char* copy;  // where the values are copied to

  double ScoreIn(const Chain& chain) const;
  int64_t LabelIn(const Chain& chain) const;
  void CopyValues(const Chain& chain) const;
};

// Every five numbers are a test: the members of ExitTest, in order.
std::vector<ExitTest> TestsOf(const ffi::Shape& numbers);

// Slots that some tests, by stage, read.
std::vector<int64_t> SlotsOf(const std::vector<std::vector<ExitTest>>& tests);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_EXIT_TESTS_H_
