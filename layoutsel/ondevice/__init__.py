"""What runs on a device that has TVM's runtime alone: needs Python's standard library and ``tvm_ffi``, nothing else."""
