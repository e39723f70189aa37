#include "descriptors.h"

#include <tvm/ffi/error.h>

#include <sstream>

namespace layoutsel {

using dnnl::memory;

namespace {

memory::dims RowMajor(const memory::dims& dims) {
  memory::dims strides(dims.size());
  int64_t step = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = step;
    step *= dims[i];
  }
  return strides;
}

void Write(std::ostream& out, const char* name, const memory::dims& values) {
  out << name;
  for (int64_t value : values) out << ' ' << value;
  out << ';';
}

}  // namespace

memory::desc Describe(const Tensor& tensor) {
  constexpr auto f32 = memory::data_type::f32;
  if (!tensor.strides.empty()) return memory::desc(tensor.dims, f32, tensor.strides);
  if (tensor.layout == "NHWC") return memory::desc(tensor.dims, f32, memory::format_tag::acdb);
  if (tensor.layout == "NCHW8c") return memory::desc(tensor.dims, f32, memory::format_tag::aBcd8b);
  if (tensor.layout == "NCHW16c") {
    return memory::desc(tensor.dims, f32, memory::format_tag::aBcd16b);
  }
  return memory::desc(tensor.dims, f32, RowMajor(tensor.dims));
}

memory::desc AnyForm(const Tensor& tensor) {
  return memory::desc(tensor.dims, memory::data_type::f32, memory::format_tag::any);
}

std::string ToText(const memory::desc& desc) {
  std::ostringstream out;
  if (desc.get_format_kind() != memory::format_kind::blocked) return "opaque";
  Write(out, "dims", desc.get_dims());
  Write(out, " padded", desc.get_padded_dims());
  Write(out, " strides", desc.get_strides());
  Write(out, " blocks", desc.get_inner_blks());
  Write(out, " axes", desc.get_inner_idxs());
  return out.str();
}

memory::desc FromText(const std::string& text, const memory::dims& dims) {
  for (int tag = dnnl_format_tag_any + 1; tag < dnnl_format_tag_last; ++tag) {
    memory::desc desc(dims, memory::data_type::f32, static_cast<memory::format_tag>(tag),
                      /*allow_empty=*/true);
    if (desc && ToText(desc) == text) return desc;
  }
  TVM_FFI_THROW(RuntimeError) << "no oneDNN format describes the packed weight {" << text
                              << "}. Build the model again on this machine.";
  TVM_FFI_UNREACHABLE();
}

}  // namespace layoutsel
