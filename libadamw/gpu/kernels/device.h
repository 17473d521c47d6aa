// Owns what a kernel asks of the machine it runs on: thread numbers, warp and block primitives, wide memory accesses.
// Knows no arithmetic. ADAMW_DEVICE_HEADER names another provider of the same functions: tests/simt runs the kernels on
// the CPU with it.
//
// Every warp primitive is called by all 32 lanes of the warp together, and barrier() by all threads of the block.
#pragma once

#include "../../numerics/types.h"

#ifdef ADAMW_DEVICE_HEADER
#include ADAMW_DEVICE_HEADER
#else

#define ADAMW_KERNEL extern "C" __global__ void
#define ADAMW_DEVICE __device__ __forceinline__
#define ADAMW_NOINLINE __device__ __noinline__  // rare paths: their registers are not the common path's
#define ADAMW_PARAMS const __grid_constant__
#define ADAMW_ASSUME(fact) __builtin_assume(fact)
#define ADAMW_LAUNCH_BOUNDS(threads, blocks_per_sm) __launch_bounds__(threads, blocks_per_sm)

namespace adamw {
namespace gpu {

ADAMW_DEVICE unsigned thread_id() { return threadIdx.x; }  // in its block
ADAMW_DEVICE unsigned block_threads() { return blockDim.x; }
ADAMW_DEVICE unsigned block_id() { return blockIdx.x; }
ADAMW_DEVICE unsigned block_count() { return gridDim.x; }
ADAMW_DEVICE unsigned lane_id() { return threadIdx.x & 31u; }

// Makes the instruction after it depend on an argument of its asm statement: no branch.
#define ADAMW_IF(number) "{.reg .pred q; setp.ne.u32 q, %" #number ", 0; @q "

// Waits for all threads of the block; what they wrote to shared memory before is visible after.
ADAMW_DEVICE void barrier() { __syncthreads(); }

// The same for the lanes of a warp.
ADAMW_DEVICE void warp_barrier() { __syncwarp(); }

// Waits for all threads of the block, if `wanted`, and says nothing of what they wrote. Without a branch.
ADAMW_DEVICE void barrier_if(bool wanted) { asm volatile(ADAMW_IF(0) "bar.sync 0;}" ::"r"(unsigned{wanted})); }

// The block's own copy of a T in shared memory, uninitialized. One T per kernel.
template <class T>
ADAMW_DEVICE T &shared() {
  __shared__ T memory;
  return memory;
}

// The value of another lane.
template <class T>
ADAMW_DEVICE T shuffle(T value, unsigned lane) {
  return __shfl_sync(0xFFFFFFFFu, value, static_cast<int>(lane));
}
template <class T>
ADAMW_DEVICE T shuffle_xor(T value, unsigned mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, static_cast<int>(mask));
}
ADAMW_DEVICE bool any(bool predicate) { return __any_sync(0xFFFFFFFFu, predicate) != 0; }

// The largest, the smallest of all 32 lanes.
ADAMW_DEVICE std::uint32_t warp_max(std::uint32_t x) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(0xFFFFFFFFu, x);
#else
  for (unsigned mask = 16; mask != 0; mask /= 2) {
    const std::uint32_t other = shuffle_xor(x, mask);
    x = other > x ? other : x;
  }
  return x;
#endif
}

ADAMW_DEVICE std::uint32_t warp_min(std::uint32_t x) {
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(0xFFFFFFFFu, x);
#else
  return ~warp_max(~x);
#endif
}

// 1 / x and 1 / sqrt(x), for normal x, to about one and two units in the last place.
ADAMW_DEVICE float approximate_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ADAMW_DEVICE float approximate_inverse_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The old value. Relaxed: fence() orders other memory around it.
ADAMW_DEVICE std::uint32_t atomic_add(std::uint32_t *p, std::uint32_t n) { return atomicAdd(p, n); }
ADAMW_DEVICE void atomic_add(std::uint64_t *p, std::uint64_t n) {
  atomicAdd(reinterpret_cast<unsigned long long *>(p), static_cast<unsigned long long>(n));
}
ADAMW_DEVICE void atomic_max(std::uint32_t *p, std::uint32_t x) { atomicMax(p, x); }

// What this thread wrote before is visible to the whole device before what it writes after; likewise for reads.
ADAMW_DEVICE void fence() { __threadfence(); }

// A read that is served by the level of cache that all blocks share: what other blocks of this launch wrote is seen.
ADAMW_DEVICE double load_fresh(const double *p) { return __ldcg(p); }
ADAMW_DEVICE float load_fresh(const float *p) { return __ldcg(p); }

// `Words` words from memory that is aligned to all of them (at most 4: 128 bits), and back. Streaming: every byte is
// used once.
template <int Words>
ADAMW_DEVICE void load_words(const void *p, std::uint32_t *words);
template <>
ADAMW_DEVICE void load_words<1>(const void *p, std::uint32_t *words) {
  words[0] = __ldcs(static_cast<const unsigned *>(p));
}
template <>
ADAMW_DEVICE void load_words<2>(const void *p, std::uint32_t *words) {
  const uint2 v = __ldcs(static_cast<const uint2 *>(p));
  words[0] = v.x, words[1] = v.y;
}
template <>
ADAMW_DEVICE void load_words<4>(const void *p, std::uint32_t *words) {
  const uint4 v = __ldcs(static_cast<const uint4 *>(p));
  words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
}
template <int Words>
ADAMW_DEVICE void store_words(void *p, const std::uint32_t *words);
template <>
ADAMW_DEVICE void store_words<1>(void *p, const std::uint32_t *words) {
  __stcs(static_cast<unsigned *>(p), words[0]);
}
template <>
ADAMW_DEVICE void store_words<2>(void *p, const std::uint32_t *words) {
  __stcs(static_cast<uint2 *>(p), make_uint2(words[0], words[1]));
}
template <>
ADAMW_DEVICE void store_words<4>(void *p, const std::uint32_t *words) {
  __stcs(static_cast<uint4 *>(p), make_uint4(words[0], words[1], words[2], words[3]));
}

// Without streaming: its neighbours in memory are others' to store.
ADAMW_DEVICE void store_float(float *p, float x) {
  asm volatile("st.global.f32 [%0], %1;" ::"l"(p), "f"(x) : "memory");
}

// load_words() where `wanted`; else the words stay as they are. Without a branch: what comes after them need not wait
// for them, and they stay ahead of it.
template <int Words>
ADAMW_DEVICE void load_words_if(bool wanted, const void *p, std::uint32_t *w);
template <>
ADAMW_DEVICE void load_words_if<1>(bool wanted, const void *p, std::uint32_t *w) {
  asm volatile(ADAMW_IF(2) "ld.global.cs.u32 %0, [%1];}" : "+r"(w[0]) : "l"(p), "r"(unsigned{wanted}) : "memory");
}
template <>
ADAMW_DEVICE void load_words_if<2>(bool wanted, const void *p, std::uint32_t *w) {
  asm volatile(ADAMW_IF(3) "ld.global.cs.v2.u32 {%0, %1}, [%2];}"
               : "+r"(w[0]), "+r"(w[1])
               : "l"(p), "r"(unsigned{wanted})
               : "memory");
}
template <>
ADAMW_DEVICE void load_words_if<4>(bool wanted, const void *p, std::uint32_t *w) {
  asm volatile(ADAMW_IF(5) "ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];}"
               : "+r"(w[0]), "+r"(w[1]), "+r"(w[2]), "+r"(w[3])
               : "l"(p), "r"(unsigned{wanted})
               : "memory");
}
ADAMW_DEVICE void load_float_if(bool wanted, const float *p, float *x) {
  asm volatile(ADAMW_IF(2) "ld.global.f32 %0, [%1];}" : "+f"(*x) : "l"(p), "r"(unsigned{wanted}) : "memory");
}

// Brings memory into L2, if `wanted`, for those who read it later: one request by a warp, whose lanes all say the same.
// `first` and `bytes` are multiples of 16. A hint: architectures before Hopper have no such request.
ADAMW_DEVICE void fetch_if(bool wanted, const void *first, std::uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{.reg .pred q, one; setp.ne.u32 q, %0, 0; elect.sync _|one, 0xFFFFFFFF; and.pred q, q, one;\n"
      "@q cp.async.bulk.prefetch.L2.global [%1], %2;}" ::"r"(unsigned{wanted}),
      "l"(first), "r"(bytes));
#endif
}

// The same for what lies around one word; each lane has its own.
ADAMW_DEVICE void fetch_word_if(bool wanted, const void *p) {
  asm volatile(ADAMW_IF(1) "prefetch.global.L2 [%0];}" ::"l"(p), "r"(unsigned{wanted}));
}
#undef ADAMW_IF

// A pointer so many bytes further, where its upper half stays: one instruction, and two with a carry. The compiler does
// not look through it, or it would add up the distance once more for every part of what lies there.
template <class T>
ADAMW_DEVICE T *ahead(T *p, std::uint32_t bytes) {
  asm("{.reg .u32 low, high; mov.b64 {low, high}, %0; add.u32 low, low, %1; mov.b64 %0, {low, high};}"
      : "+l"(p)
      : "r"(bytes));
  return p;
}

// Byte `number` of a word in bits 16 ... 23, alone.
ADAMW_DEVICE std::uint32_t code_in_place(std::uint32_t word, int number) {
  return __byte_perm(word, 0u, 0x4044u | static_cast<unsigned>(number) << 8);
}

// Four of the bytes of two words: the n-th digit of `which`, from the lowest, says which becomes byte n. 0 ... 3 are
// those of a, 4 ... 7 those of b; 8 more: all bits are as its highest.
ADAMW_DEVICE std::uint32_t chosen_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t which) {
  std::uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(which));
  return result;
}

// The first's bits with the sign bit of the second: the compiler makes two instructions of it where it knows more.
ADAMW_DEVICE std::uint32_t with_sign(std::uint32_t magnitude, std::uint32_t sign) {
  std::uint32_t result;
  asm("lop3.b32 %0, %1, %2, 0x80000000, 0xD8;" : "=r"(result) : "r"(magnitude), "r"(sign));
  return result;
}

// Bits 16 ... 23 of four numbers as the bytes of a word, the first lowest.
ADAMW_DEVICE std::uint32_t pack_codes(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return __byte_perm(__byte_perm(a, b, 0x0062), __byte_perm(c, d, 0x0062), 0x5410);
}

}  // namespace gpu
}  // namespace adamw

#endif
