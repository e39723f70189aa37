// Arrays of a caller as inputs of a model.
#ifndef LAYOUTSEL_ONEDNN_INPUTS_H_
#define LAYOUTSEL_ONEDNN_INPUTS_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <vector>

namespace layoutsel {

namespace ffi = tvm::ffi;

// Checks arrays, and copies those that are not aligned as kernels expect.
class Inputs {
 public:
  // `buffers`: an aligned tensor for each input, of its shape and element type.
  explicit Inputs(const ffi::Array<ffi::Tensor>& buffers);

  // Takes the arguments from `first` on. False if their number is wrong, or one of them is no
  // row-major tensor of this shape and element type in host memory.
  bool Take(ffi::PackedArgs arguments, int first);

  // What was taken; valid until the next call.
  ffi::PackedArgs taken() const {
    return ffi::PackedArgs(taken_.data(), static_cast<int32_t>(taken_.size()));
  }

 private:
  std::vector<ffi::Tensor> buffers_;
  std::vector<ffi::AnyView> taken_;
};

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_INPUTS_H_
