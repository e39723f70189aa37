#include "descriptors.h"

#include <dnnl_debug.h>
#include <tvm/ffi/error.h>

#include <sstream>
#include <unordered_map>

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

memory::data_type DataType(const std::string& name) {
  static const std::unordered_map<std::string, memory::data_type> table = {
      {"float32", memory::data_type::f32}, {"bfloat16", memory::data_type::bf16},
      {"int8", memory::data_type::s8},     {"uint8", memory::data_type::u8},
      {"int32", memory::data_type::s32},
  };
  auto found = table.find(name);
  if (found == table.end()) TVM_FFI_THROW(ValueError) << "unknown element type '" << name << "'";
  return found->second;
}

// The layout of tensors whose last dimension is contiguous, whatever their rank.
constexpr char kRowMajor[] = "NCHW";

memory::desc DescribeAs(const Tensor& tensor, const std::string& type_name) {
  static const std::unordered_map<std::string, memory::format_tag> tags = {
      {"NHWC", memory::format_tag::acdb},       {"NCHW4c", memory::format_tag::aBcd4b},
      {"NCHW8c", memory::format_tag::aBcd8b},   {"NCHW16c", memory::format_tag::aBcd16b},
      {"NCHW32c", memory::format_tag::aBcd32b},
  };
  memory::data_type type = DataType(type_name);
  if (!tensor.strides.empty()) return memory::desc(tensor.dims, type, tensor.strides);
  auto tag = tags.find(tensor.layout);
  if (tag != tags.end()) return memory::desc(tensor.dims, type, tag->second);
  if (tensor.layout != kRowMajor)
    TVM_FFI_THROW(ValueError) << "unknown layout '" << tensor.layout << "'";
  return memory::desc(tensor.dims, type, RowMajor(tensor.dims));
}

void Write(std::ostream& out, const char* name, const memory::dims& values) {
  out << name;
  for (int64_t value : values) out << ' ' << value;
  out << ';';
}

memory::desc Tagged(const memory::dims& dims, memory::data_type type, int tag) {
  return memory::desc(dims, type, static_cast<memory::format_tag>(tag), /*allow_empty=*/true);
}

// Whether one of oneDNN's tags says all of a descriptor. Else it holds sums beside the weights,
// which correct for zero points and signs.
bool HasTag(const memory::desc& desc) {
  for (int tag = dnnl_format_tag_any + 1; tag < dnnl_format_tag_last; ++tag) {
    memory::desc tagged = Tagged(desc.get_dims(), desc.get_data_type(), tag);
    if (tagged && tagged == desc) return true;
  }
  return false;
}

}  // namespace

memory::desc Describe(const Tensor& tensor) { return DescribeAs(tensor, tensor.type); }

memory::desc DescribePlain(const Tensor& tensor) { return DescribeAs(tensor, tensor.plain_type); }

memory::desc AnyForm(const Tensor& tensor) {
  return memory::desc(tensor.dims, DataType(tensor.type), memory::format_tag::any);
}

std::string ToText(const memory::desc& desc) {
  std::ostringstream out;
  if (desc.get_format_kind() != memory::format_kind::blocked) return "opaque";
  out << dnnl_dt2str(memory::convert_to_c(desc.get_data_type())) << ' ';
  Write(out, "dims", desc.get_dims());
  Write(out, " padded", desc.get_padded_dims());
  Write(out, " strides", desc.get_strides());
  Write(out, " blocks", desc.get_inner_blks());
  Write(out, " axes", desc.get_inner_idxs());
  if (desc.get_data_type() == memory::data_type::s8 && !HasTag(desc)) {
    out << " compensated " << desc.get_size() << ';';
  }
  return out.str();
}

memory::desc FromText(const std::string& text, const Tensor& tensor) {
  for (int tag = dnnl_format_tag_any + 1; tag < dnnl_format_tag_last; ++tag) {
    memory::desc desc = Tagged(tensor.dims, DataType(tensor.type), tag);
    if (desc && ToText(desc) == text) return desc;
  }
  TVM_FFI_THROW(RuntimeError) << "no oneDNN format describes the packed weight {" << text
                              << "}. Build the model again on this machine.";
  TVM_FFI_UNREACHABLE();
}

}  // namespace layoutsel
