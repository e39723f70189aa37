// The calls of one run of a virtual machine, which repeats without the machine.
#ifndef LAYOUTSEL_ONEDNN_RECORDING_H_
#define LAYOUTSEL_ONEDNN_RECORDING_H_

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cancellation.h"

namespace layoutsel {

namespace ffi = tvm::ffi;

// Shapes are static and networks have no branches: every run of a function calls the same kernels
// on tensors of the same shapes. The machine allocates each of these tensors anew and checks them;
// for kernels of microseconds that takes longer than the kernels do. A recording keeps the kernels
// and their intermediates. Tensors that the caller keeps are still allocated in every run.
//
// Values are the inputs, in order, and the tensors and storages that the machine made.
class Recording {
 public:
  explicit Recording(ffi::PackedArgs inputs);

  // The machine's instrument adds the calls of the calling thread while `work` runs.
  template <typename Work>
  void During(Work work) {
    Recording* before = std::exchange(current_, this);
    try {
      work();
    } catch (...) {
      current_ = before;
      throw;
    }
    current_ = before;
  }

  // Number of calls so far.
  int64_t size() const { return calls_.size(); }

  // Number of the value that an object is. One that the machine did not make, such as a weight, is
  // added as a constant.
  int64_t NumberOf(const ffi::Any& object);

  // Ends the recording: returns false if this run cannot be repeated. The values `kept` are read
  // after a run; `is_fresh`: they belong to its caller, and are allocated anew.
  bool Finish(const std::vector<int64_t>& kept, bool is_fresh);

  // A run: sets the inputs, does the calls from `begin` up to `end`, and gives up fresh values.
  void Start(ffi::PackedArgs inputs);
  void Run(int64_t begin, int64_t end);
  void Stop();

  // Does the calls from `begin` up to `end`, and counts them as sub-graphs. Returns false if
  // `cancellation`, which the calling thread alone watches, stopped it before one of them.
  bool RunUntil(int64_t begin, int64_t end, Cancellation* cancellation);

  // Whether a value belongs to one run alone.
  bool IsFresh(int64_t number) const { return fresh_[number] != 0; }

  const ffi::Any& Value(int64_t number) const { return values_[number]; }

  // Instrument of a virtual machine whose runs are recorded.
  static ffi::Function Instrument();

 private:
  struct Call {
    ffi::Function function;
    std::vector<ffi::Any> arguments;
    std::vector<int64_t> uses;  // by argument: its value, or kNone
    int64_t result;             // value, or kNone
    bool is_kernel;
    std::vector<ffi::AnyView> views;                  // of the arguments
    std::vector<std::pair<int64_t, int64_t>> places;  // (argument, value) to set in every run
    bool runs = false;                                // in repetitions
  };

  void Add(ffi::PackedArgs seen);
  void Do(Call* call);
  void MarkProducers(int64_t value);
  bool PlaceIntermediates(const std::vector<int64_t>& kept);
  void Prepare(const std::vector<int64_t>& kept);

  static thread_local Recording* current_;

  int64_t inputs_;
  bool is_repeatable_ = true;
  std::vector<Call> calls_;
  std::vector<ffi::Any> values_;
  std::vector<int64_t> producers_;  // by value: its call, or kNone
  std::vector<char> fresh_;         // by value: 1 if made anew in every run
  std::unordered_map<const void*, int64_t> numbers_;
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_RECORDING_H_
