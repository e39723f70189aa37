"""OpenCL: the run time that TVM's wheel lacks. It serves every user of TVM, whether of these passes or not."""
