#include "blueprint.h"

#include <dnnl_debug.h>
#include <tvm/ffi/error.h>

#include <functional>
#include <set>
#include <unordered_map>

#include "descriptors.h"

namespace layoutsel {

using dnnl::algorithm;
using dnnl::memory;
using dnnl::prop_kind;

namespace {

constexpr auto kInference = prop_kind::forward_inference;

int Operand(const std::string& name) {
  static const std::unordered_map<std::string, int> table = {
      {"src", DNNL_ARG_SRC},
      {"src_1", DNNL_ARG_SRC_1},
      {"weights", DNNL_ARG_WEIGHTS},
      {"dst", DNNL_ARG_DST},
  };
  return table.at(name);
}

// oneDNN 3.2's 1x1 convolution for AMX takes tiles of up to 16 pixels in pairs: of an image with
// three tiles it writes a fourth, behind the result.
bool Overruns(const std::string& implementation, const memory::desc& result) {
  constexpr int64_t kThreeTiles = 48;
  memory::dims dims = result.get_dims();
  int64_t pixels = 1;
  for (size_t axis = 2; axis < dims.size(); ++axis) pixels *= dims[axis];
  return implementation == "jit_1x1:avx512_core_amx" && pixels <= kThreeTiles;
}

// What every rule needs: the node, its descriptors and the attributes common to all primitives.
class Designer {
 public:
  Designer(const Graph& graph, const Node& node, const dnnl::engine& engine)
      : node(node), engine(engine), graph_(graph) {
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attr.set_post_ops(PostOps());
    for (const Quantization& q : node.quantized) {
      attr.set_scales_mask(Operand(q.operand), static_cast<int>(q.mask));
      if (q.zero_point >= 0) attr.set_zero_points_mask(Operand(q.operand), 0);
    }
  }

  memory::desc In(size_t i) const { return Describe(graph_.tensors[node.inputs.at(i)]); }
  memory::desc Out(size_t i = 0) const { return Describe(graph_.tensors[node.outputs.at(i)]); }

  // A weight: the primitive chooses the form where the graph leaves it open.
  memory::desc Weight(size_t i) const {
    const Tensor& tensor = graph_.tensors[node.inputs.at(i)];
    return tensor.packable ? AnyForm(tensor) : Describe(tensor);
  }

  bool Has(size_t i) const { return i < node.inputs.size(); }

  // `roles`: the DNNL_ARG of every input.
  template <typename PrimitiveDesc>
  Blueprint Finish(PrimitiveDesc desc, const std::vector<int>& roles) const {
    // oneDNN 3.2 may offer an implementation several times when its cache knows the first: count
    // names.
    std::set<std::string> seen;
    while (true) {
      std::string name = desc.impl_info_str();
      if (!Overruns(name, Out())) seen.insert(name);
      if (static_cast<int64_t>(seen.size()) > node.implementation) return FinishFixed(desc, roles);
      if (!desc.next_impl()) {
        TVM_FFI_THROW(ValueError) << node.Where() << ": oneDNN has only " << seen.size()
                                  << " implementations; got number " << node.implementation;
      }
    }
  }

  // For primitives whose implementations cannot be chosen from.
  Blueprint FinishFixed(const dnnl::primitive_desc_base& desc,
                        const std::vector<int>& roles) const {
    Blueprint out;
    out.desc = desc;
    out.implementation = desc.impl_info_str();
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      int64_t id = node.inputs[i];
      out.arguments.emplace_back(roles.at(i), id);
      if (graph_.tensors[id].packable) {
        out.preferred.emplace_back(id, desc.query_md(dnnl::query::exec_arg_md, roles.at(i)));
        CheckConversion(graph_.tensors[id], out.preferred.back().second);
      }
    }
    out.arguments.emplace_back(DNNL_ARG_DST, node.outputs.at(0));
    for (size_t i = 0; i < node.post_ops.size(); ++i) {
      if (node.post_ops[i].kind != "binary") continue;
      int role = DNNL_ARG_ATTR_MULTIPLE_POST_OP(static_cast<int>(i)) | DNNL_ARG_SRC_1;
      out.arguments.emplace_back(role, node.post_ops[i].tensor);
    }
    for (const Quantization& q : node.quantized) {
      int operand = Operand(q.operand);
      out.arguments.emplace_back(DNNL_ARG_ATTR_SCALES | operand, q.scale);
      if (q.zero_point < 0) continue;
      out.arguments.emplace_back(DNNL_ARG_ATTR_ZERO_POINTS | operand, q.zero_point);
    }
    return out;
  }

  // A weight computed at run time has to get into that form then; throws where oneDNN cannot.
  void CheckConversion(const Tensor& tensor, const memory::desc& form) const {
    if (graph_.storages[tensor.storage].kind == StorageKind::kWeight) return;
    dnnl::reorder::primitive_desc(engine, DescribePlain(tensor), engine, form);
  }

  const Node& node;
  const dnnl::engine& engine;
  dnnl::primitive_attr attr;

 private:
  dnnl::post_ops PostOps() const;

  const Graph& graph_;
};

algorithm Eltwise(const std::string& name) {
  static const std::unordered_map<std::string, algorithm> table = {
      {"relu", algorithm::eltwise_relu},
      {"tanh", algorithm::eltwise_tanh},
      {"elu", algorithm::eltwise_elu},
      {"square", algorithm::eltwise_square},
      {"abs", algorithm::eltwise_abs},
      {"sqrt", algorithm::eltwise_sqrt},
      {"swish", algorithm::eltwise_swish},
      {"linear", algorithm::eltwise_linear},
      {"softplus", algorithm::eltwise_soft_relu},
      {"sigmoid", algorithm::eltwise_logistic},
      {"mish", algorithm::eltwise_mish},
      {"exp", algorithm::eltwise_exp},
      {"gelu_tanh", algorithm::eltwise_gelu_tanh},
      {"gelu_erf", algorithm::eltwise_gelu_erf},
      {"log", algorithm::eltwise_log},
      {"clip", algorithm::eltwise_clip},
      {"pow", algorithm::eltwise_pow},
      {"round", algorithm::eltwise_round},
      {"hardswish", algorithm::eltwise_hardswish},
      {"hardsigmoid", algorithm::eltwise_hardsigmoid},
  };
  return table.at(name);
}

algorithm Binary(const std::string& name) {
  static const std::unordered_map<std::string, algorithm> table = {
      {"add", algorithm::binary_add}, {"sub", algorithm::binary_sub},
      {"mul", algorithm::binary_mul}, {"div", algorithm::binary_div},
      {"max", algorithm::binary_max}, {"min", algorithm::binary_min},
  };
  return table.at(name);
}

algorithm Reduction(const std::string& name) {
  static const std::unordered_map<std::string, algorithm> table = {
      {"mean", algorithm::reduction_mean},
      {"sum", algorithm::reduction_sum},
      {"max", algorithm::reduction_max},
      {"min", algorithm::reduction_min},
  };
  return table.at(name);
}

algorithm Pooling(const std::string& name) {
  static const std::unordered_map<std::string, algorithm> table = {
      {"max", algorithm::pooling_max},
      {"avg", algorithm::pooling_avg_exclude_padding},
      {"avg_include_padding", algorithm::pooling_avg_include_padding},
  };
  return table.at(name);
}

dnnl::post_ops Designer::PostOps() const {
  dnnl::post_ops out;
  for (const PostOp& op : node.post_ops) {
    if (op.kind == "sum") {
      out.append_sum(1.0f);
    } else if (op.kind == "binary") {
      out.append_binary(Binary(op.algorithm), Describe(graph_.tensors[op.tensor]));
    } else {
      out.append_eltwise(Eltwise(op.algorithm), op.alpha, op.beta);
    }
  }
  return out;
}

Blueprint Convolution(const Designer& d) {
  const Node& n = d.node;
  memory::desc bias = d.Has(2) ? d.In(2) : memory::desc();
  dnnl::convolution_forward::primitive_desc desc(
      d.engine, kInference, algorithm::convolution_direct, d.In(0), d.Weight(1), bias, d.Out(),
      n.Ints("strides"), n.Ints("dilation"), n.Ints("padding_before"), n.Ints("padding_after"),
      d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS});
}

Blueprint Deconvolution(const Designer& d) {
  const Node& n = d.node;
  memory::desc bias = d.Has(2) ? d.In(2) : memory::desc();
  dnnl::deconvolution_forward::primitive_desc desc(
      d.engine, kInference, algorithm::deconvolution_direct, d.In(0), d.Weight(1), bias, d.Out(),
      n.Ints("strides"), n.Ints("dilation"), n.Ints("padding_before"), n.Ints("padding_after"),
      d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS});
}

Blueprint Matmul(const Designer& d) {
  memory::desc bias = d.Has(2) ? d.In(2) : memory::desc();
  dnnl::matmul::primitive_desc desc(d.engine, d.In(0), d.Weight(1), bias, d.Out(), d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS});
}

Blueprint Pool(const Designer& d) {
  const Node& n = d.node;
  dnnl::pooling_forward::primitive_desc desc(d.engine, kInference, Pooling(n.Str("algorithm")),
                                             d.In(0), d.Out(), n.Ints("strides"), n.Ints("kernel"),
                                             n.Ints("dilation"), n.Ints("padding_before"),
                                             n.Ints("padding_after"), d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC});
}

Blueprint Elementwise(const Designer& d) {
  const Node& n = d.node;
  dnnl::eltwise_forward::primitive_desc desc(d.engine, kInference, Eltwise(n.Str("algorithm")),
                                             d.In(0), d.Out(), static_cast<float>(n.Float("alpha")),
                                             static_cast<float>(n.Float("beta")), d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC});
}

Blueprint BinaryOp(const Designer& d) {
  dnnl::binary::primitive_desc desc(d.engine, Binary(d.node.Str("algorithm")), d.In(0), d.In(1),
                                    d.Out(), d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC_0, DNNL_ARG_SRC_1});
}

Blueprint Concat(const Designer& d) {
  std::vector<memory::desc> sources;
  std::vector<int> roles;
  for (size_t i = 0; i < d.node.inputs.size(); ++i) {
    sources.push_back(d.In(i));
    roles.push_back(DNNL_ARG_MULTIPLE_SRC + static_cast<int>(i));
  }
  dnnl::concat::primitive_desc desc(d.engine, d.Out(), static_cast<int>(d.node.Int("axis")),
                                    sources, d.attr);
  return d.FinishFixed(desc, roles);
}

Blueprint Softmax(const Designer& d) {
  const Node& n = d.node;
  algorithm kind = n.Int("log") ? algorithm::softmax_log : algorithm::softmax_accurate;
  dnnl::softmax_forward::primitive_desc desc(d.engine, kInference, kind, d.In(0), d.Out(),
                                             static_cast<int>(n.Int("axis")), d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC});
}

Blueprint Lrn(const Designer& d) {
  const Node& n = d.node;
  dnnl::lrn_forward::primitive_desc desc(
      d.engine, kInference, algorithm::lrn_across_channels, d.In(0), d.Out(), n.Int("size"),
      static_cast<float>(n.Float("alpha")), static_cast<float>(n.Float("beta")),
      static_cast<float>(n.Float("bias")), d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC});
}

Blueprint Resampling(const Designer& d) {
  algorithm kind = d.node.Str("algorithm") == "linear" ? algorithm::resampling_linear
                                                       : algorithm::resampling_nearest;
  dnnl::resampling_forward::primitive_desc desc(d.engine, kInference, kind, d.In(0), d.Out(),
                                                d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC});
}

Blueprint Reduce(const Designer& d) {
  dnnl::reduction::primitive_desc desc(d.engine, Reduction(d.node.Str("algorithm")), d.In(0),
                                       d.Out(), 0.0f, 0.0f, d.attr);
  return d.Finish(desc, {DNNL_ARG_SRC});
}

Blueprint Reorder(const Designer& d) {
  dnnl::reorder::primitive_desc desc(d.engine, d.In(0), d.engine, d.Out(), d.attr);
  return d.FinishFixed(desc, {DNNL_ARG_FROM});
}

using Rule = std::function<Blueprint(const Designer&)>;

const std::unordered_map<std::string, Rule>& Rules() {
  static const std::unordered_map<std::string, Rule> rules = {
      {"convolution", Convolution},
      {"deconvolution", Deconvolution},
      {"matmul", Matmul},
      {"pooling", Pool},
      {"eltwise", Elementwise},
      {"binary", BinaryOp},
      {"concat", Concat},
      {"softmax", Softmax},
      {"lrn", Lrn},
      {"resampling", Resampling},
      {"reduction", Reduce},
      {"reorder", Reorder},
  };
  return rules;
}

}  // namespace

Blueprint Design(const Graph& graph, const Node& node, const dnnl::engine& engine) {
  auto rule = Rules().find(node.op);
  if (rule == Rules().end()) {
    TVM_FFI_THROW(ValueError) << node.Where() << ": unknown primitive '" << node.op << "'";
  }
  try {
    return rule->second(Designer(graph, node, engine));
  } catch (const dnnl::error& error) {
    TVM_FFI_THROW(RuntimeError) << node.Where() << ": " << node.op << ": oneDNN " << error.what()
                                << " (status " << dnnl_status2str(error.status) << ")";
  } catch (const std::out_of_range&) {
    TVM_FFI_THROW(ValueError) << node.Where() << ": " << node.op
                              << ": unknown algorithm or missing operand";
  }
  TVM_FFI_UNREACHABLE();
}

}  // namespace layoutsel
