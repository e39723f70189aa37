// Memory descriptors: from layouts, and to text that survives serialisation.
#ifndef LAYOUTSEL_ONEDNN_DESCRIPTORS_H_
#define LAYOUTSEL_ONEDNN_DESCRIPTORS_H_

#include <dnnl.hpp>
#include <string>

#include "graph.h"

namespace layoutsel {

// Descriptor of a tensor as the plan lays it out.
dnnl::memory::desc Describe(const Tensor& tensor);

// Descriptor of a packable weight before it is packed.
dnnl::memory::desc DescribePlain(const Tensor& tensor);

// The same dimensions, with the form left to the primitive.
dnnl::memory::desc AnyForm(const Tensor& tensor);

// What a blocked descriptor says, as text: type, dims, padded dims, strides, blocks.
std::string ToText(const dnnl::memory::desc& desc);

// The descriptor that ToText wrote down; throws where none of oneDNN's tags has that form.
dnnl::memory::desc FromText(const std::string& text, const Tensor& tensor);

}  // namespace layoutsel

#endif  // LAYOUTSEL_ONEDNN_DESCRIPTORS_H_
