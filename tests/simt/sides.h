// Owns two copies of the same tensors, one for the CPU and one for the device, and their comparison byte by byte. Knows
// the public C API alone.
#pragma once

#include <algorithm>
#include <string>

#include "arena.h"
#include "block_memory.h"
#include "cpp/model.h"

namespace simt {

// A buffer of exactly `count` elements, `shift` elements beyond a multiple of 64 bytes, between bytes that nobody may
// change (nor read, where the address sanitizer is).
class Guarded {
 public:
  Guarded(std::int64_t count, std::size_t size, std::size_t shift)
      : bytes_(static_cast<std::size_t>(count) * size), begin_(guard + shift * size), all_(begin_ + bytes_ + guard) {
    memory_ = arena().take(all_);
    std::memset(memory_, guard_value, all_);
    std::memset(memory_ + begin_, 0, bytes_);
    protect(true);
  }
  Guarded(Guarded &&other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_), begin_(other.begin_), all_(other.all_) {}
  Guarded &operator=(Guarded &&) = delete;
  ~Guarded() {
    if (memory_ == nullptr) return;
    protect(false);
    arena().give_back();
  }
  std::uint8_t *at() const { return memory_ + begin_; }
  float *floats() const { return reinterpret_cast<float *>(at()); }
  std::size_t bytes() const { return bytes_; }
  bool intact() {
    protect(false);
    const auto untouched = [&](std::size_t first, std::size_t end) {
      int differs = 0;
      for (std::size_t i = first; i < end; ++i) differs |= memory_[i] ^ guard_value;
      return differs == 0;
    };
    const bool same = untouched(0, begin_) && untouched(begin_ + bytes_, all_);
    protect(true);
    return same;
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr std::uint8_t guard_value = 0xA9;
  void protect([[maybe_unused]] bool on) {
#ifdef SIMT_GUARDED_BY_ASAN
    // Before the buffer, whole units of 8 bytes only.
    if (on) ASAN_POISON_MEMORY_REGION(memory_ + begin_ + bytes_, guard);
    if (on) ASAN_POISON_MEMORY_REGION(memory_, begin_ & ~std::size_t{7});
    if (!on) ASAN_UNPOISON_MEMORY_REGION(memory_, all_);
#endif
  }
  std::uint8_t *memory_;
  std::size_t bytes_, begin_, all_;
};

constexpr int state_formats = ADAMW_STATE_BFLOAT16 + 1;
constexpr const char *format_names[state_formats] = {"32", "block8", "tensor8", "16"};

// How a format keeps the numbers of a moment; as codes, if it has no dtype.
inline bool has_codes(int format) { return format == ADAMW_STATE_BLOCK8 || format == ADAMW_STATE_TENSOR8; }
inline adamw_dtype dtype_of_state(int format) {
  return format == ADAMW_STATE_BFLOAT16 ? ADAMW_BFLOAT16 : ADAMW_FLOAT32;
}
inline std::size_t size_of_state(int format) { return has_codes(format) ? 1 : size_of(dtype_of_state(format)); }

// The tensors of one side.
struct Side : TensorBuffers {
  adamw_step_options options;
  std::vector<TensorShape> shapes;
  std::vector<std::vector<Guarded>> memory;  // [tensor][buffer]
  std::vector<adamw_tensor> rows;
  Guarded scalars{16, 4, 0}, step_numbers;  // what the device reads at more places than rows

  // shift: 0, or every buffer begins so many elements (more or less) beyond a multiple of 64 bytes.
  Side(const adamw_step_options &o, const std::vector<TensorShape> &s, std::size_t shift)
      : options(o), shapes(s), step_numbers(static_cast<std::int64_t>(s.size()), 4, 0) {
    options.skipped = &skipped();
    skipped() = 5;
    if (o.grad_scale != nullptr) options.grad_scale = &(scalars.floats()[2] = *o.grad_scale);
    if (o.grad_factor != nullptr) options.grad_factor = &(scalars.floats()[5] = *o.grad_factor);
    if (o.found_inf != nullptr) options.found_inf = &(scalars.floats()[3] = *o.found_inf);
    if (o.lr_tensor != nullptr) options.lr_tensor = &(scalars.floats()[4] = *o.lr_tensor);
    const std::size_t sizes[] = {size_of(static_cast<adamw_dtype>(o.param_dtype)),
                                 size_of(static_cast<adamw_dtype>(o.grad_dtype))};
    for (const TensorShape &shape : shapes) {
      const std::int64_t n = shape.rows * shape.row_length;
      adamw_state_layout layout{};
      CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(o.state_format), n, shape.row_length, 1,
                                   o.remainder_bits, &layout) == ADAMW_OK,
            "layout: %s", adamw_last_error());
      const std::size_t state = size_of_state(o.state_format),
                        rest = static_cast<std::size_t>(std::max(o.remainder_bits, 8)) / 8;
      std::vector<Guarded> b;
      for (int i = 0; i < buffer_count; ++i) {
        const std::size_t off = shift == 0 ? 0 : (shift + static_cast<std::size_t>(i)) % 5;
        if (i <= grad)
          b.emplace_back(n, sizes[i], off);
        else if (i <= max_exp_avg_sq)
          b.emplace_back(n, state, off);
        else if (i == remainder)
          b.emplace_back(o.remainder_bits != 0 ? n : 0, rest, off);
        else
          b.emplace_back(i == history  ? ADAMW_GNORM_HISTORY
                         : i >= floor1 ? layout.floor_count
                                       : layout.absmax_count,
                         4, off);
      }
      memory.push_back(std::move(b));
    }
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const std::vector<Guarded> &b = memory[i];
      adamw_tensor row{};
      row.param = b[param].at(), row.grad = b[grad].at();
      row.exp_avg = b[exp_avg].at(), row.exp_avg_sq = b[exp_avg_sq].at(), row.max_exp_avg_sq = b[max_exp_avg_sq].at();
      row.exp_avg_absmax = b[absmax0].floats(), row.exp_avg_sq_absmax = b[absmax1].floats();
      row.max_exp_avg_sq_absmax = b[absmax2].floats(), row.gnorm_history = b[history].floats();
      row.param_remainder = o.remainder_bits != 0 ? b[remainder].at() : nullptr;
      row.exp_avg_sq_floor = b[floor1].floats(), row.max_exp_avg_sq_floor = b[floor2].floats();
      row.numel = shapes[i].rows * shapes[i].row_length, row.row_length = shapes[i].row_length;
      row.global_offset = shapes[i].global_offset, row.step = 1;
      row.run_length = shapes[i].run_length, row.run_stride = shapes[i].run_stride;
      rows.push_back(row);
    }
  }

  std::int64_t &skipped() { return *reinterpret_cast<std::int64_t *>(scalars.at()); }
  // Remainders are any bits: such are valid. But with zeros, most make no number; numbers: there are none.
  void fill_params(std::uint64_t seed, bool numbers = false) {
    fill_all(param, options.param_dtype, seed, false);
    if (options.remainder_bits == 0) return;
    Random random(seed * 131 + 9);
    for (auto &b : memory) {
      for (std::size_t k = 0; k < b[remainder].bytes(); ++k)
        b[remainder].at()[k] = static_cast<std::uint8_t>(random.bits());
      for (std::size_t k = 0; numbers && k < b[param].bytes(); k += 2)
        put(b[param].at() + k, ADAMW_BFLOAT16, random.bits() & 1, -1 - random.below(12), random.bits());
    }
  }
  // With master weights: zeros, whose sum with a negative remainder is no number, infinities, NaN and what is next to
  // them in one of `blocks` blocks of 256 elements, at random, with remainders or without.
  void spoil_params(std::uint64_t seed, int blocks) {
    static const std::uint16_t spoilt[] = {0, 0x8000, 0x7F80, 0xFF80, 0x7F81, 0xFFC0, 0x7FFF, 0xFFFF, 0x7F7F, 1};
    if (options.remainder_bits == 0) return;
    Random random(seed * 83 + 3);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::int64_t k = 0; k < rows[i].numel; k += 256) {
        if (random.below(blocks) != 0) continue;
        const std::int64_t at = std::min(rows[i].numel - 1, k + random.below(256));
        std::memcpy(memory[i][param].at() + 2 * at, &spoilt[random.below(10)], 2);
        const auto rest = static_cast<std::size_t>(options.remainder_bits) / 8;
        if (random.below(2) == 0) std::memset(memory[i][remainder].at() + static_cast<std::size_t>(at) * rest, 0, rest);
      }
    }
  }
  void fill_gradients(std::uint64_t seed, bool not_finite) { fill_all(grad, options.grad_dtype, seed, not_finite); }
  // As in training: what a kernel's common path takes.
  void fill_ordinary_gradients(std::uint64_t seed) {
    Random random(seed * 78 + 3);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::int64_t k = 0; k < rows[i].numel; ++k) {
        void *at =
            memory[i][grad].at() + static_cast<std::size_t>(k) * size_of(static_cast<adamw_dtype>(options.grad_dtype));
        const bool zero = random.below(20) == 0;
        put(at, static_cast<adamw_dtype>(options.grad_dtype), random.bits() & 1, zero ? -1000 : -1 - random.below(12),
            zero ? 0 : random.bits());
      }
    }
  }
  // A NaN in one of `blocks` blocks of 256 elements, at random.
  void spoil_gradients(std::uint64_t seed, int blocks) {
    Random random(seed * 79 + 1);
    const std::size_t size = size_of(static_cast<adamw_dtype>(options.grad_dtype));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::int64_t k = 255; k < rows[i].numel; k += 256)
        if (random.below(blocks) == 0)
          std::memset(memory[i][grad].at() + static_cast<std::size_t>(k) * size, 0xFF, size);
    }
  }
  // State as after many steps, instead of zeros: any codes, any scales.
  void fill_state(std::uint64_t seed) {
    Random random(seed);
    for (auto &b : memory) {
      for (int i = exp_avg; i <= max_exp_avg_sq; ++i) {
        const Guarded &moment = b[static_cast<std::size_t>(i)];
        if (!has_codes(options.state_format)) {
          const std::size_t size = size_of_state(options.state_format);
          for (std::size_t k = 0; k < moment.bytes() / size; ++k) {
            const float x = random.uniform() * (random.below(4) == 0 ? 1e-6f : 0.1f);
            const std::uint32_t kept = bits_of(i == exp_avg ? x : x * x) >> 8 * (4 - size);
            std::memcpy(moment.at() + k * size, &kept, size);
          }
        } else {
          for (std::size_t k = 0; k < moment.bytes(); ++k) moment.at()[k] = static_cast<std::uint8_t>(random.bits());
        }
      }
      for (int i = absmax0; i <= absmax2; ++i) {
        const Guarded &scales = b[static_cast<std::size_t>(i)];
        for (std::size_t k = 0; k < scales.bytes() / 4; ++k)
          scales.floats()[k] = random.below(9) == 0 ? 0.0f : static_cast<float>(random.unit()) * 0.01f;
      }
      // The root of 0 and what is less, which only fresh state has; the last floats before 1; and what is between.
      for (int i = floor1; i <= floor2; ++i) {
        static const float edges[] = {0.0f, 0x1.1p-16f, 0x1.2p-16f, 0x1.200002p-16f, 0x1.fffffep-1f, 1.0f};
        const Guarded &floors = b[static_cast<std::size_t>(i)];
        for (std::size_t k = 0; k < floors.bytes() / 4; ++k)
          floors.floats()[k] = random.below(4) == 0 ? edges[random.below(6)] : static_cast<float>(random.unit());
      }
      for (int k = 0; k < ADAMW_GNORM_HISTORY; ++k)
        b[history].floats()[k] = random.below(2) == 0 ? 0.0f : static_cast<float>(random.unit()) * 100.0f;
    }
  }

  std::int64_t unread_step = 0;  // adamw_tensor.step where the device has step_tensor
  // Step numbers differ from row to row where `spread` is above 1.
  adamw_status step(std::int64_t number, bool from_tensor, int spread = 1) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].step = number + static_cast<std::int64_t>(i) % spread;
      step_numbers.floats()[i] = static_cast<float>(rows[i].step);
      rows[i].step_tensor = from_tensor ? &step_numbers.floats()[i] : nullptr;
      if (from_tensor && options.device >= 0) rows[i].step = unread_step;
    }
    if (options.device >= 0) arena().close();
    const adamw_status status =
        adamw_step(&options, rows.data(), sizeof rows[0], static_cast<std::int64_t>(rows.size()));
    arena().open();
    return status;
  }

 private:
  void fill_all(Buffer buffer, int dtype, std::uint64_t seed, bool not_finite) {
    Random random(seed * 77 + 5);
    for (std::size_t i = 0; i < rows.size(); ++i)
      fill(memory[i][buffer].at(), static_cast<adamw_dtype>(dtype), rows[i].numel, random, not_finite);
  }
};

// Copies of all buffers.
using Contents = std::vector<std::vector<std::vector<std::uint8_t>>>;  // [row][buffer]

inline Contents contents_of(const Side &side) {
  Contents all;
  for (const std::vector<Guarded> &buffers : side.memory) {
    all.emplace_back();
    for (const Guarded &b : buffers) all.back().emplace_back(b.at(), b.at() + b.bytes());
  }
  return all;
}

// The history is left out: it is as the gradients are, and not part of what is stepped in windows.
inline bool same_row(const Side &side, const Contents &must, std::size_t row) {
  bool same = true;
  for (std::size_t i = 0; i < Side::buffer_count; ++i) {
    const std::vector<std::uint8_t> &bytes = must[row][i];
    same = same && (i == Side::history || std::equal(bytes.begin(), bytes.end(), side.memory[row][i].at()));
  }
  return same;
}

// Whether element k of two buffers of a dtype is a NaN in both: sign and payload are not promised.
inline bool both_nan(const Guarded &a, const Guarded &b, int dtype, std::size_t k) {
  const auto nan = [&](const Guarded &g) {
    if (dtype == ADAMW_FLOAT32) return g.floats()[k] != g.floats()[k];
    std::uint16_t half;
    std::memcpy(&half, g.at() + 2 * k, 2);
    return (half & 0x7FFF) > (dtype == ADAMW_FLOAT16 ? 0x7C00 : 0x7F80);
  };
  return nan(a) && nan(b);
}

// Every byte of both sides, and that nothing around the buffers changed. false: the first difference was reported.
inline bool check_same(Side &cpu, Side &device, const std::string &what) {
  static const char *const names[] = {"param",
                                      "grad",
                                      "exp_avg",
                                      "exp_avg_sq",
                                      "max_exp_avg_sq",
                                      "absmax of exp_avg",
                                      "absmax of exp_avg_sq",
                                      "absmax of max_exp_avg_sq",
                                      "floor of exp_avg_sq",
                                      "floor of max_exp_avg_sq",
                                      "history",
                                      "remainder"};
  const int before = failures();
  for (std::size_t i = 0; i < cpu.rows.size() && failures() == before; ++i) {
    for (std::size_t b = 0; b < Side::buffer_count && failures() == before; ++b) {
      Guarded &left = cpu.memory[i][b], &right = device.memory[i][b];
      CHECK(left.intact(), "%s: row %zu: the CPU wrote beyond %s", what.c_str(), i, names[b]);
      CHECK(right.intact(), "%s: row %zu: the device wrote beyond %s", what.c_str(), i, names[b]);
      if (left.bytes() == 0 || std::memcmp(left.at(), right.at(), left.bytes()) == 0) continue;
      const bool moment = b >= Side::exp_avg && b <= Side::max_exp_avg_sq;
      const int dtype = b == Side::param  ? cpu.options.param_dtype
                        : b == Side::grad ? cpu.options.grad_dtype
                        : moment          ? static_cast<int>(dtype_of_state(cpu.options.state_format))
                                          : static_cast<int>(ADAMW_FLOAT32);
      const std::size_t size = b == Side::remainder ? static_cast<std::size_t>(cpu.options.remainder_bits) / 8
                               : moment             ? size_of_state(cpu.options.state_format)
                                                    : size_of(static_cast<adamw_dtype>(dtype));
      // What all bits are promised of.
      const bool exact = (moment && has_codes(cpu.options.state_format)) || b == Side::remainder ||
                         (b == Side::param && cpu.options.remainder_bits != 0);
      for (std::size_t k = 0; k < left.bytes() / size; ++k) {
        std::uint32_t l = 0, r = 0;
        std::memcpy(&l, left.at() + k * size, size);
        std::memcpy(&r, right.at() + k * size, size);
        if (l == r || (!exact && both_nan(left, right, dtype, k))) continue;
        CHECK(l == r, "%s: row %zu (%lld x %lld): %s[%zu]: CPU %08x, device %08x", what.c_str(), i,
              static_cast<long long>(cpu.shapes[i].rows), static_cast<long long>(cpu.shapes[i].row_length), names[b], k,
              l, r);
        break;
      }
    }
  }
  CHECK(cpu.skipped() == device.skipped(), "%s: skipped: CPU %lld, device %lld", what.c_str(),
        static_cast<long long>(cpu.skipped()), static_cast<long long>(device.skipped()));
  return failures() == before;
}

}  // namespace simt
