// Tensors that a lane of a multi-exit network reads of the trunk's lane.
#ifndef LAYOUTSEL_ONEDNN_LANE_INPUTS_H_
#define LAYOUTSEL_ONEDNN_LANE_INPUTS_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <vector>

#include "chain.h"

namespace layoutsel {

class LaneInputs {
 public:
  // `sources`: slots of the trunk's lane, which start with the `inputs` of the network.
  LaneInputs(const ffi::Shape& sources, const ffi::Array<ffi::Tensor>& inputs);

  // The sources that the trunk computes.
  std::vector<int64_t> Taps() const;

  // Takes the tensors of a trunk that repeats. Returns false if any of them changes from run to
  // run.
  bool TakeTaps(const Chain& trunk);

  // Copies inputs of a request. The caller may change its arrays as soon as it has an answer, and
  // the lane may still run.
  void Copy(ffi::PackedArgs inputs);

  // What the lane takes; valid for all requests.
  ffi::PackedArgs given() const { return {views_.data(), static_cast<int32_t>(views_.size())}; }

 private:
  bool IsInput(int64_t slot) const { return slot < inputs_; }
  void Give(size_t i, ffi::Any value);

  std::vector<int64_t> sources_;
  int64_t inputs_;
  std::vector<ffi::Any> values_;
  std::vector<ffi::AnyView> views_;
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_LANE_INPUTS_H_
