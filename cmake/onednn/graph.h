// What a partition computes: the description that the Python code generation writes as JSON.
#ifndef LAYOUTSEL_ONEDNN_GRAPH_H_
#define LAYOUTSEL_ONEDNN_GRAPH_H_

#include <tvm/ffi/extra/json.h>

#include <cstdint>
#include <string>
#include <vector>

namespace layoutsel {

namespace ffi = tvm::ffi;

enum class StorageKind { kInput, kOutput, kWeight, kConst, kTemp };

// A piece of memory. Several tensors may lie in one storage.
struct Storage {
  StorageKind kind;
  int64_t index = -1;      // kInput, kWeight: argument; kOutput: result
  int64_t bytes = 0;       // kTemp: size in the arena
  std::vector<char> data;  // kConst
};

// A logical tensor and how it lies in its storage.
struct Tensor {
  std::vector<int64_t> dims;
  std::string type;              // of its elements, as TVM names it
  std::string plain_type;        // packable: of the elements before they are packed
  std::string layout;            // name of a layout; empty where strides are given
  std::vector<int64_t> strides;  // in elements
  int64_t storage = -1;
  int64_t offset = 0;     // in bytes
  bool packable = false;  // a weight that the primitive may want in an opaque form
  std::string packed;     // description of the form in which the weight arrives; empty: plain
};

struct PostOp {
  std::string kind;  // sum, eltwise, binary
  std::string algorithm;
  float alpha = 0, beta = 0;
  int64_t tensor = -1;  // binary
};

// What a primitive's integers stand for: (integer - zero point) * scale.
struct Quantization {
  std::string operand;      // src, src_1, weights, dst
  int64_t mask = 0;         // bit of each axis along which scales differ
  int64_t scale = -1;       // tensor
  int64_t zero_point = -1;  // tensor of one int32; -1: zero
};

// One oneDNN primitive.
struct Node {
  std::string op;
  std::string subgraph;       // such as s7
  std::string operator_name;  // such as nn.conv2d
  std::vector<int64_t> inputs, outputs;
  std::vector<PostOp> post_ops;
  std::vector<Quantization> quantized;
  int64_t implementation = 0;  // how many of oneDNN's implementations to skip
  ffi::json::Object attrs;

  int64_t Int(const char* key, int64_t otherwise = 0) const;
  double Float(const char* key, double otherwise = 0) const;
  std::string Str(const char* key) const;
  std::vector<int64_t> Ints(const char* key) const;
  std::string Where() const;
};

struct Graph {
  std::string symbol;
  std::vector<Storage> storages;
  std::vector<Tensor> tensors;
  std::vector<Node> nodes;
  int64_t num_params = 0;   // arguments before the results
  int64_t num_outputs = 0;  // results
};

Graph ParseGraph(const std::string& text);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_GRAPH_H_
