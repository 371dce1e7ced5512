"""The native kernel of `fused`: C++ with ATen's vectors, built on first use, and its operators in torch."""
