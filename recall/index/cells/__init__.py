"""Search over vectors of eight-bit codes: a scan at the speed of memory whose answers are those of float32."""
