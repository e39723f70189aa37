#include "inputs.h"

#include <algorithm>
#include <cstring>

namespace layoutsel {

namespace {

constexpr uintptr_t kAlignment = 64;  // that of the virtual machine's tensors

bool IsRowMajor(const DLTensor& tensor) {
  if (tensor.strides == nullptr) return true;
  int64_t step = 1;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != step) return false;
    step *= tensor.shape[axis];
  }
  return true;
}

bool Fits(const DLTensor& tensor, const ffi::Tensor& buffer) {
  ffi::ShapeView shape = buffer.shape();
  DLDataType type = buffer.dtype();
  return tensor.device.device_type == kDLCPU && tensor.dtype.code == type.code &&
         tensor.dtype.bits == type.bits && tensor.dtype.lanes == type.lanes &&
         std::equal(shape.begin(), shape.end(), tensor.shape, tensor.shape + tensor.ndim) &&
         IsRowMajor(tensor);
}

}  // namespace

Inputs::Inputs(const ffi::Array<ffi::Tensor>& buffers) : buffers_(buffers.begin(), buffers.end()) {
  taken_.resize(buffers_.size());
}

bool Inputs::Take(ffi::PackedArgs arguments, int first) {
  if (arguments.size() - first != static_cast<int>(buffers_.size())) return false;
  for (size_t i = 0; i < buffers_.size(); ++i) {
    ffi::AnyView argument = arguments[first + static_cast<int>(i)];
    auto tensor = argument.try_cast<DLTensor*>();
    if (!tensor || !Fits(**tensor, buffers_[i])) return false;
    const char* data = static_cast<const char*>((*tensor)->data) + (*tensor)->byte_offset;
    bool is_aligned = reinterpret_cast<uintptr_t>(data) % kAlignment == 0;
    taken_[i] = argument;
    if (is_aligned && (*tensor)->byte_offset == 0 && argument.as<ffi::Tensor>()) continue;
    std::memcpy(buffers_[i].data_ptr(), data, ffi::GetDataSize(buffers_[i]));
    taken_[i] = buffers_[i];
  }
  return true;
}

}  // namespace layoutsel
