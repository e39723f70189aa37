#include "wire.h"

#include <cstring>

namespace layoutsel::opencl {

namespace ffi = tvm::ffi;
using tvm::runtime::ArgExtraTags;
using tvm::runtime::FunctionInfo;
using tvm::runtime::FunctionInfoObj;

namespace {

class Writer {
 public:
  template <typename T>
  void Number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void Text(const std::string& value) {
    Number<uint64_t>(value.size());
    text_ += value;
  }
  ffi::Bytes bytes() const { return ffi::Bytes(text_); }

 private:
  std::string text_;
};

class Reader {
 public:
  explicit Reader(const ffi::Bytes& bytes) : next_(bytes.data()), left_(bytes.size()) {}

  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(value)), sizeof(value));
    return value;
  }
  std::string Text() {
    auto size = Number<uint64_t>();
    return std::string(Take(size), size);
  }

 private:
  const char* Take(uint64_t size) {
    if (size > left_) {
      TVM_FFI_THROW(ValueError) << "a saved OpenCL module is cut off: expected " << size
                                << " more bytes, got " << left_;
    }
    const char* start = next_;
    next_ += size;
    left_ -= size;
    return start;
  }

  const char* next_;
  uint64_t left_;
};

void WriteInfo(const FunctionInfo& info, Writer* out) {
  out->Text(info->name);
  out->Number<uint64_t>(info->arg_types.size());
  for (DLDataType type : info->arg_types) {
    out->Number(type.code);
    out->Number(type.bits);
    out->Number(type.lanes);
  }
  out->Number<uint64_t>(info->launch_param_tags.size());
  for (const ffi::String& tag : info->launch_param_tags) out->Text(tag);
  out->Number<uint64_t>(info->arg_extra_tags.size());
  for (ArgExtraTags tag : info->arg_extra_tags) out->Number(static_cast<int32_t>(tag));
}

FunctionInfo ReadInfo(Reader* in) {
  auto info = ffi::make_object<FunctionInfoObj>();
  info->name = in->Text();
  for (auto left = in->Number<uint64_t>(); left > 0; --left) {
    DLDataType type;
    type.code = in->Number<uint8_t>();
    type.bits = in->Number<uint8_t>();
    type.lanes = in->Number<uint16_t>();
    info->arg_types.push_back(type);
  }
  for (auto left = in->Number<uint64_t>(); left > 0; --left) {
    info->launch_param_tags.push_back(in->Text());
  }
  for (auto left = in->Number<uint64_t>(); left > 0; --left) {
    info->arg_extra_tags.push_back(static_cast<ArgExtraTags>(in->Number<int32_t>()));
  }
  return FunctionInfo(info);
}

}  // namespace

ffi::Bytes WriteModule(const std::string& format, const KernelInfos& infos,
                       const std::string& code) {
  Writer out;
  out.Text(format);
  out.Number<uint64_t>(infos.size());
  for (const auto& [name, info] : infos) {
    out.Text(name);
    WriteInfo(info, &out);
  }
  out.Text(code);
  return out.bytes();
}

Saved ReadModule(const ffi::Bytes& bytes) {
  Reader in(bytes);
  Saved saved;
  saved.format = in.Text();
  for (auto left = in.Number<uint64_t>(); left > 0; --left) {
    std::string name = in.Text();
    saved.infos.Set(name, ReadInfo(&in));
  }
  saved.code = in.Text();
  return saved;
}

}  // namespace layoutsel::opencl
