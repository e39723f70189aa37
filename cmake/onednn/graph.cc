#include "graph.h"

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/string.h>

namespace layoutsel {

namespace {

constexpr int64_t kSchemaVersion = 2;

using Object = ffi::json::Object;

ffi::Any Get(const Object& object, const char* key) {
  auto it = object.find(ffi::String(key));
  return it == object.end() ? ffi::Any(nullptr) : ffi::Any((*it).second);
}

int64_t GetInt(const Object& object, const char* key, int64_t otherwise = 0) {
  ffi::Any value = Get(object, key);
  return value == nullptr ? otherwise : value.cast<int64_t>();
}

double GetFloat(const Object& object, const char* key, double otherwise = 0) {
  ffi::Any value = Get(object, key);
  return value == nullptr ? otherwise : value.cast<double>();
}

std::string GetStr(const Object& object, const char* key) {
  ffi::Any value = Get(object, key);
  return value == nullptr ? std::string() : std::string(value.cast<ffi::String>());
}

template <typename T>
std::vector<T> GetList(const Object& object, const char* key) {
  std::vector<T> out;
  ffi::Any value = Get(object, key);
  if (value == nullptr) return out;
  for (const ffi::Any& item : value.cast<ffi::json::Array>()) out.push_back(item.cast<T>());
  return out;
}

template <typename T>
void Append(T value, std::vector<char>* data) {
  const char* bytes = reinterpret_cast<const char*>(&value);
  data->insert(data->end(), bytes, bytes + sizeof(T));
}

StorageKind ParseKind(const std::string& kind) {
  if (kind == "input") return StorageKind::kInput;
  if (kind == "output") return StorageKind::kOutput;
  if (kind == "weight") return StorageKind::kWeight;
  if (kind == "const") return StorageKind::kConst;
  if (kind == "temp") return StorageKind::kTemp;
  TVM_FFI_THROW(ValueError) << "unknown storage kind '" << kind << "'";
  TVM_FFI_UNREACHABLE();
}

Storage ParseStorage(const Object& object) {
  Storage out;
  out.kind = ParseKind(GetStr(object, "kind"));
  out.index = GetInt(object, "index", -1);
  out.bytes = GetInt(object, "bytes");
  bool integers = GetStr(object, "type") == "int32";
  for (double value : GetList<double>(object, "values")) {
    integers ? Append(static_cast<int32_t>(value), &out.data)
             : Append(static_cast<float>(value), &out.data);
  }
  return out;
}

Tensor ParseTensor(const Object& object) {
  Tensor out;
  out.dims = GetList<int64_t>(object, "dims");
  out.type = GetStr(object, "type");
  out.plain_type = GetStr(object, "plain_type");
  out.layout = GetStr(object, "layout");
  out.strides = GetList<int64_t>(object, "strides");
  out.storage = GetInt(object, "storage");
  out.offset = GetInt(object, "offset");
  out.packable = GetInt(object, "packable") != 0;
  out.packed = GetStr(object, "packed");
  return out;
}

PostOp ParsePostOp(const Object& object) {
  PostOp out;
  out.kind = GetStr(object, "kind");
  out.algorithm = GetStr(object, "algorithm");
  out.alpha = static_cast<float>(GetFloat(object, "alpha"));
  out.beta = static_cast<float>(GetFloat(object, "beta"));
  out.tensor = GetInt(object, "tensor", -1);
  return out;
}

Quantization ParseQuantization(const Object& object) {
  Quantization out;
  out.operand = GetStr(object, "operand");
  out.mask = GetInt(object, "mask");
  out.scale = GetInt(object, "scale", -1);
  out.zero_point = GetInt(object, "zero_point", -1);
  return out;
}

Node ParseNode(const Object& object) {
  Node out;
  out.op = GetStr(object, "op");
  out.subgraph = GetStr(object, "subgraph");
  out.operator_name = GetStr(object, "operator");
  out.inputs = GetList<int64_t>(object, "inputs");
  out.outputs = GetList<int64_t>(object, "outputs");
  for (const Object& item : GetList<Object>(object, "post_ops")) {
    out.post_ops.push_back(ParsePostOp(item));
  }
  for (const Object& item : GetList<Object>(object, "quantized")) {
    out.quantized.push_back(ParseQuantization(item));
  }
  out.implementation = GetInt(object, "implementation");
  out.attrs = Get(object, "attrs").cast<Object>();
  return out;
}

}  // namespace

int64_t Node::Int(const char* key, int64_t otherwise) const {
  return GetInt(attrs, key, otherwise);
}

double Node::Float(const char* key, double otherwise) const {
  return GetFloat(attrs, key, otherwise);
}

std::string Node::Str(const char* key) const { return GetStr(attrs, key); }

std::vector<int64_t> Node::Ints(const char* key) const { return GetList<int64_t>(attrs, key); }

std::string Node::Where() const {
  return "sub-graph " + subgraph + " (" + operator_name + ") on onednn";
}

Graph ParseGraph(const std::string& text) {
  ffi::String error;
  ffi::Any parsed = ffi::json::Parse(ffi::String(text), &error);
  if (parsed == nullptr) TVM_FFI_THROW(ValueError) << "cannot parse a oneDNN graph: " << error;
  Object object = parsed.cast<Object>();
  int64_t version = GetInt(object, "schema_version");
  if (version != kSchemaVersion) {
    TVM_FFI_THROW(ValueError) << "oneDNN graph: got schema version " << version << "; expected "
                              << kSchemaVersion << ". Build the model again with this version.";
  }
  Graph out;
  out.symbol = GetStr(object, "symbol");
  out.num_params = GetInt(object, "num_params");
  out.num_outputs = GetInt(object, "num_outputs");
  for (const Object& item : GetList<Object>(object, "storages")) {
    out.storages.push_back(ParseStorage(item));
  }
  for (const Object& item : GetList<Object>(object, "tensors")) {
    out.tensors.push_back(ParseTensor(item));
  }
  for (const Object& item : GetList<Object>(object, "nodes")) out.nodes.push_back(ParseNode(item));
  return out;
}

}  // namespace layoutsel
