"""Run exported policies on live sensor messages. NumPy, onnxruntime and Open3D only: no torch, no Warp."""
