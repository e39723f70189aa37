// From a node of the graph to a oneDNN primitive.
#ifndef LAYOUTSEL_ONEDNN_BLUEPRINT_H_
#define LAYOUTSEL_ONEDNN_BLUEPRINT_H_

#include <dnnl.hpp>
#include <string>
#include <utility>
#include <vector>

#include "graph.h"

namespace layoutsel {

// A chosen implementation, before it is compiled.
struct Blueprint {
  dnnl::primitive_desc_base desc;
  std::vector<std::pair<int, int64_t>> arguments;                 // (DNNL_ARG_*, tensor)
  std::vector<std::pair<int64_t, dnnl::memory::desc>> preferred;  // weights: (tensor, form)
  std::string implementation;                                     // oneDNN's name for it
};

// Throws ffi::Error that names the sub-graph and the operator where oneDNN declines.
Blueprint Design(const Graph& graph, const Node& node, const dnnl::engine& engine);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_BLUEPRINT_H_
