// OpenCL's C++ bindings, as this plugin uses them: version 1.2 is enough, failures are exceptions.
#ifndef LAYOUTSEL_OPENCL_OPENCL_H_
#define LAYOUTSEL_OPENCL_OPENCL_H_

#define CL_HPP_TARGET_OPENCL_VERSION 120
#define CL_HPP_MINIMUM_OPENCL_VERSION 120
#define CL_HPP_ENABLE_EXCEPTIONS
#include <CL/opencl.hpp>

#endif  // LAYOUTSEL_OPENCL_OPENCL_H_
