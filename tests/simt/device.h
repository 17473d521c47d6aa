// Owns what a kernel asks of its machine (libadamw/gpu/device.h), for kernels that run in runtime.h. Knows no
// arithmetic.
//
// A mutant breaks one of these functions, to prove that the tests of the kernels would notice: SIMT_MUTANT in the
// environment is a number of `Mutant`.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "approximate.h"
#include "runtime.h"

#define ADAMW_SIMT 1
#define ADAMW_KERNEL extern "C" void
#define ADAMW_DEVICE inline
#define ADAMW_NOINLINE inline __attribute__((noinline))
#define ADAMW_PARAMS const
#define ADAMW_ASSUME(fact) \
  if (!(fact)) simt::fail("not a fact: " #fact)
#define ADAMW_LAUNCH_BOUNDS(threads, blocks_per_sm)

namespace simt {

enum Mutant {
  no_mutant,
  barrier_missing,        // 1: barrier() does nothing
  warp_max_half,          // 2: of the lower 16 lanes only
  any_alone,              // 3: looks at its own lane only
  atomic_add_wrong_old,   // 4: returns the new value
  shuffle_alone,          // 5: gives back the lane's own value
  shuffle_xor_neighbour,  // 6: the mask's lowest bit is wrong
  words_cut,              // 7: the last word of a wide store is not written
  codes_swapped,          // 8: pack_codes() confuses two of the four
  atomic_max_overwrites,  // 9: the last one wins
  atomic_add_lost,        // 10: the sum of 64 bits is one addition late
  block_count_one,        // 11: every block believes to be alone
  warp_max_late,          // 12: warp_max ignores lane 0
  warp_barrier_missing,   // 13: warp_barrier() does nothing
  reciprocal_coarse,      // 14: right to 5 bits only
  inverse_root_coarse,    // 15: right to 9 bits only
  barrier_uneven = 29,    // the first warp passes barrier_if(); paging_mutants.h has the numbers between
  // Those of source_mutants.cmake: mistakes in the kernels themselves.
  padding_counts = 30,    // as numbers of a block, and so as its smallest
  floor_of_other,         // 31: any_block8() reads and writes exp_avg_sq's floor as its maximum's
  floor_of_other_stream,  // 32: the common path writes it so
  clamp_forgotten,        // 33: numbers above zero become code 0 in blocks with zeros
  zero_forgotten,         // 34: zeros do not
  carry_forgotten,        // 35: runs go on where a pointer's upper half changes
  zeros_forgotten,        // 36: the common path takes no block to have zeros
  nan_forgotten,          // 37: of 8-bit state it takes every master weight to be a number
  nan_of_numbers,         // 38: of other state
  infinities_forgotten,   // 39: it takes decay 0 to make a number of them
  other_byte,             // 40: 24 bits are rounded by a byte that rounds moments, on the rare path
  rounded_down,           // 41: a parameter half a unit from two is the lower one, on the common path
  rounded_down_rarely,    // 42: and on the other
  sums_unchecked,         // 43: a sum that is no number is a weight
  any_nan,                // 44: a NaN is kept as it is
  other_half,             // 45: exp_avg_sq of 16 bits is rounded by the other half of a word
  remainder_carry,        // 46: runs go on where the upper half of the remainder's address changes
  other_byte_quickly,     // 47: as other_byte, on the common path
};
inline bool mutated(Mutant mutant) { return settings().mutant == mutant; }

}  // namespace simt

namespace adamw {
namespace gpu {

ADAMW_DEVICE unsigned thread_id() { return simt::current->id; }
ADAMW_DEVICE unsigned block_threads() { return simt::block_threads(); }
ADAMW_DEVICE unsigned block_id() { return simt::mutated(simt::block_count_one) ? 0 : simt::block_id(); }
ADAMW_DEVICE unsigned block_count() { return simt::mutated(simt::block_count_one) ? 1 : simt::block_count(); }
ADAMW_DEVICE unsigned lane_id() { return simt::current->lane; }

ADAMW_DEVICE void barrier(simt::Site site = simt::Site::here()) {
  if (!simt::mutated(simt::barrier_missing)) simt::barrier(site);
}
ADAMW_DEVICE void warp_barrier(simt::Site site = simt::Site::here()) {
  if (!simt::mutated(simt::warp_barrier_missing)) simt::warp_barrier(site);
}

ADAMW_DEVICE void barrier_if(bool wanted, simt::Site site = simt::Site::here()) {
  if (wanted && !(simt::mutated(simt::barrier_uneven) && thread_id() < 32)) simt::barrier(site);
}

template <class T>
ADAMW_DEVICE T &shared() {
  static_assert(alignof(T) <= 16, "the runtime aligns shared memory to 16");
  return *static_cast<T *>(simt::shared_memory(sizeof(T)));
}

template <class T>
ADAMW_DEVICE T shuffle(T value, unsigned lane, simt::Site site = simt::Site::here()) {
  static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
  if (simt::mutated(simt::shuffle_alone)) lane = lane_id();
  simt::shuffle(simt::Primitive::shuffle, &value, sizeof value, lane, site);
  return value;
}
template <class T>
ADAMW_DEVICE T shuffle_xor(T value, unsigned mask, simt::Site site = simt::Site::here()) {
  static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
  if (simt::mutated(simt::shuffle_xor_neighbour)) mask ^= 1;
  simt::shuffle(simt::Primitive::shuffle_xor, &value, sizeof value, lane_id() ^ mask, site);
  return value;
}
ADAMW_DEVICE bool any(bool predicate, simt::Site site = simt::Site::here()) {
  const bool all = simt::vote(simt::Primitive::any, predicate, site) != 0;
  return simt::mutated(simt::any_alone) ? predicate : all;
}
ADAMW_DEVICE std::uint32_t warp_max(std::uint32_t x, simt::Site site = simt::Site::here()) {
  if (simt::mutated(simt::warp_max_half) && lane_id() >= 16) x = 0;
  if (simt::mutated(simt::warp_max_late) && lane_id() == 0) x = 0;
  return simt::vote(simt::Primitive::warp_max, x, site);
}

ADAMW_DEVICE std::uint32_t warp_min(std::uint32_t x, simt::Site site = simt::Site::here()) {
  return ~warp_max(~x, site);
}

// Approximations that err as far as PTX allows (rcp: 1 unit in the last place, rsqrt: 2^-22.9), for each operand in a
// way that the seed chooses: what is made of them must not depend on how a GPU errs. Denormal numbers count as zero.
ADAMW_DEVICE float approximate_reciprocal(float x) {
  return simt::approximate_reciprocal(x, simt::mutated(simt::reciprocal_coarse));
}
ADAMW_DEVICE float approximate_inverse_root(float x) {
  return simt::approximate_inverse_root(x, simt::mutated(simt::inverse_root_coarse));
}

// Fibers change only where they say so: these are atomic as they stand. Others run before and after.
template <class T, class Change>
ADAMW_DEVICE T simt_atomic(T *p, const char *what, const Change &change) {
  simt::check_aligned(p, sizeof *p, what);
  simt::pause();
  const T old = *p;
  *p = change(old);
  simt::pause();
  return old;
}
ADAMW_DEVICE std::uint32_t atomic_add(std::uint32_t *p, std::uint32_t n) {
  const std::uint32_t old = simt_atomic(p, "atomic_add", [=](std::uint32_t x) { return x + n; });
  return simt::mutated(simt::atomic_add_wrong_old) ? old + n : old;
}
ADAMW_DEVICE void atomic_add(std::uint64_t *p, std::uint64_t n) {
  static std::uint64_t late = 0;
  if (simt::mutated(simt::atomic_add_lost)) std::swap(n, late);
  simt_atomic(p, "atomic_add", [=](std::uint64_t x) { return x + n; });
}
ADAMW_DEVICE void atomic_max(std::uint32_t *p, std::uint32_t x) {
  const bool overwrites = simt::mutated(simt::atomic_max_overwrites);
  simt_atomic(p, "atomic_max", [=](std::uint32_t old) { return overwrites || x > old ? x : old; });
}

ADAMW_DEVICE void fence() { simt::pause(); }

template <class T>
ADAMW_DEVICE T simt_load(const T *p) {
  simt::check_aligned(p, sizeof *p, "load_fresh");
  simt::pause();
  return *p;
}
ADAMW_DEVICE double load_fresh(const double *p) { return simt_load(p); }
ADAMW_DEVICE float load_fresh(const float *p) { return simt_load(p); }

template <int Words>
ADAMW_DEVICE void load_words(const void *p, std::uint32_t *words) {
  static_assert(Words == 1 || Words == 2 || Words == 4, "as wide as the machine's loads");
  simt::check_aligned(p, Words * 4, "load_words");
  std::memcpy(words, p, Words * 4);
}
template <int Words>
ADAMW_DEVICE void store_words(void *p, const std::uint32_t *words) {
  static_assert(Words == 1 || Words == 2 || Words == 4, "as wide as the machine's stores");
  simt::check_aligned(p, Words * 4, "store_words");
  std::memcpy(p, words, Words * 4 - (simt::mutated(simt::words_cut) && Words > 1 ? 4 : 0));
}

template <int Words>
ADAMW_DEVICE void load_words_if(bool wanted, const void *p, std::uint32_t *words) {
  if (wanted) load_words<Words>(p, words);
}
ADAMW_DEVICE void load_float_if(bool wanted, const float *p, float *x) {
  simt::check_aligned(p, sizeof *p, "load_float_if");
  if (wanted) *x = *p;
}
ADAMW_DEVICE void store_float(float *p, float x) {
  simt::check_aligned(p, sizeof *p, "store_float");
  *p = x;
}
// Touches what is to be fetched: it must lie within the buffer.
ADAMW_DEVICE void fetch_if(bool wanted, const void *first, std::uint32_t bytes) {
  if (!wanted) return;
  simt::check_aligned(first, 16, "fetch_if");
  simt::check_aligned(reinterpret_cast<const void *>(std::uintptr_t{bytes}), 16, "the length of fetch_if");
  if (lane_id() == 0) ++simt::fetches;
  const auto *at = static_cast<const volatile unsigned char *>(first);
  for (std::uint32_t i = 0; i < bytes; i += 16) static_cast<void>(at[i]);
  static_cast<void>(at[bytes - 1]);
}
ADAMW_DEVICE void fetch_word_if(bool wanted, const void *p) {
  simt::check_aligned(p, 4, "fetch_word_if");
  if (wanted) static_cast<void>(*static_cast<const volatile std::uint32_t *>(p));
}
// Beyond the end, too, where nothing is read. The upper half stays.
template <class T>
ADAMW_DEVICE T *ahead(T *p, std::uint32_t bytes) {
  const auto from = reinterpret_cast<std::uintptr_t>(p);
  return reinterpret_cast<T *>((from & ~std::uintptr_t{0xFFFFFFFF}) | static_cast<std::uint32_t>(from + bytes));
}

ADAMW_DEVICE std::uint32_t code_in_place(std::uint32_t word, int number) { return (word >> 8 * number & 255u) << 16; }
ADAMW_DEVICE std::uint32_t chosen_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t which) {
  const std::uint64_t all = std::uint64_t{b} << 32 | a;
  std::uint32_t result = 0;
  for (int n = 0; n < 4; ++n) {
    const std::uint32_t digit = which >> 4 * n & 15u, byte = static_cast<std::uint32_t>(all >> 8 * (digit & 7u)) & 255u;
    result |= (digit < 8 ? byte : byte < 128 ? 0u : 255u) << 8 * n;
  }
  return result;
}
ADAMW_DEVICE std::uint32_t with_sign(std::uint32_t magnitude, std::uint32_t sign) {
  return (magnitude & 0x7FFFFFFFu) | (sign & 0x80000000u);
}
ADAMW_DEVICE std::uint32_t pack_codes(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  if (simt::mutated(simt::codes_swapped)) std::swap(b, c);
  const auto byte = [](std::uint32_t x) { return x >> 16 & 255u; };
  return byte(a) | byte(b) << 8 | byte(c) << 16 | byte(d) << 24;
}

}  // namespace gpu
}  // namespace adamw
