// Owns what the fuzzer has found that is not mended yet: as long as a constant is true, it leaves that out.
#pragma once

namespace known {

// Stochastic rounding takes about one in 2^16 exact binary16 numbers below 2^-14 to its neighbour, also with
// skip_zeros.
constexpr bool float16_subnormals_move = true;
// reserve_bytes near INT64_MAX is accepted, and reserves nothing.
constexpr bool endless_reserve = true;
// max_unorm and TENSOR8 are UNSUPPORTED for tensors of some thousand elements in windows of 65536 bytes.
constexpr bool small_windows_take_no_norms = true;

}  // namespace known
