// Owns what the fuzzer has found that is not mended yet: as long as a constant is true, it leaves that out.
#pragma once

namespace known {

// Stochastic rounding takes about one in 2^16 exact binary16 numbers below 2^-14 to its neighbour, also with
// skip_zeros.
constexpr bool float16_subnormals_move = true;
// max_unorm and TENSOR8 are UNSUPPORTED for tensors of some thousand elements in windows of 65536 bytes.
constexpr bool small_windows_take_no_norms = true;
// run_length must be in 0 ... numel, but any is accepted where numel is 0.
constexpr bool nothing_lies_in_runs = true;
// Where the reciprocal of grad_scale overflows, `skipped` counts elements that pad the last vector, too.
constexpr bool padding_is_skipped = true;
// After a fork, what the program writes into a buffer of a FILE pager is lost if another thread makes the first call
// with that pager meanwhile. The stress then has no buffers that it writes in pagers that several threads use.
constexpr bool writes_beside_a_call_are_lost = true;

}  // namespace known
