// Owns a set of tensors with gradients and state that tests step through the public C API, and compare byte by byte.
#pragma once

#include <utility>
#include <vector>

#include "../../include/adamw.h"
#include "check.h"
#include "inputs.h"

struct TensorShape {
  std::int64_t rows, row_length, global_offset, run_length = 0, run_stride = 0;
};

inline adamw_step_options step_options(adamw_state_format format = ADAMW_STATE_FLOAT32, std::uint32_t flags = 0,
                                       adamw_dtype param = ADAMW_FLOAT32, adamw_dtype grad = ADAMW_FLOAT32,
                                       int remainder_bits = 0) {
  adamw_step_options o = ADAMW_STEP_OPTIONS_INIT;
  o.state_format = format;
  o.flags = flags;
  o.param_dtype = param;
  o.grad_dtype = grad;
  o.remainder_bits = remainder_bits;
  o.seed = 42;
  return o;
}

// What a tensor of a step consists of.
struct TensorBuffers {
  enum Buffer {
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    max_exp_avg_sq,
    absmax0,
    absmax1,
    absmax2,
    floor1,
    floor2,
    history,
    remainder,
    buffer_count
  };
};

struct Model : TensorBuffers {
  adamw_step_options options;
  std::vector<std::vector<Bytes>> memory;  // [tensor][buffer]
  std::vector<adamw_tensor> rows;

  // Ordinary parameters in [-1, 1), state zero. Every buffer is exactly as long as it must be, for the address
  // sanitizer.
  Model(const adamw_step_options &o, const std::vector<TensorShape> &shapes, std::uint64_t seed = 1) : options(o) {
    for (const TensorShape &s : shapes) {
      const std::int64_t n = s.rows * s.row_length;
      adamw_state_layout layout;
      CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(o.state_format), n, s.row_length, 1,
                                   o.remainder_bits, &layout) == ADAMW_OK,
            "layout: %s", adamw_last_error());
      const std::size_t p = size_of(static_cast<adamw_dtype>(o.param_dtype)),
                        g = size_of(static_cast<adamw_dtype>(o.grad_dtype));
      std::vector<Bytes> b(buffer_count);
      b[param] = Bytes(n, p, 0);
      b[grad] = Bytes(n, g, 0);
      for (int i = exp_avg; i <= max_exp_avg_sq; ++i) b[static_cast<std::size_t>(i)] = Bytes(layout.moment_bytes, 1, 0);
      for (int i = absmax0; i <= absmax2; ++i) b[static_cast<std::size_t>(i)] = Bytes(layout.absmax_count, 4, 0);
      for (int i = floor1; i <= floor2; ++i) b[static_cast<std::size_t>(i)] = Bytes(layout.floor_count, 4, 0);
      b[history] = Bytes(ADAMW_GNORM_HISTORY, 4, 0);
      b[remainder] = Bytes(layout.remainder_bytes, 1, 0);
      Random random(seed + static_cast<std::uint64_t>(n));
      put_uniform(b[param], n, static_cast<adamw_dtype>(o.param_dtype), random, 0);
      memory.push_back(std::move(b));
    }
    for (std::size_t i = 0; i < memory.size(); ++i) {
      std::vector<Bytes> &b = memory[i];
      rows.push_back({b[0].at(), b[1].at(), b[2].at(), b[3].at(), b[4].at(), b[5].floats(), b[6].floats(),
                      b[7].floats(), b[8].floats(), b[9].floats(), b[remainder].at(), b[history].floats(),
                      shapes[i].rows * shapes[i].row_length, shapes[i].row_length, 1, shapes[i].global_offset,
                      shapes[i].run_length, shapes[i].run_stride, nullptr});
    }
  }

  // Numbers of magnitude 2^(-1 - below(spread)) and less, with some zeros if spread > 0.
  static void put_uniform(Bytes &bytes, std::int64_t n, adamw_dtype dtype, Random &random, int spread) {
    for (std::int64_t i = 0; i < n; ++i) {
      void *at = static_cast<char *>(bytes.at()) + static_cast<std::size_t>(i) * size_of(dtype);
      const bool zero = spread > 0 && random.below(9) == 0;
      put(at, dtype, random.bits() & 1, zero ? -1000 : -1 - random.below(spread + 1), zero ? 0 : random.bits());
    }
  }
  void new_gradients(std::uint64_t seed, int spread = 8) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      Random random(seed * 1000003 + static_cast<std::uint64_t>(rows[i].numel));
      put_uniform(memory[i][grad], rows[i].numel, static_cast<adamw_dtype>(options.grad_dtype), random, spread);
    }
  }
  // Those of another model of the same shapes: faster than to make them again.
  void take_gradients(const Model &from) {
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i][grad].memory = from.memory[i][grad].memory;
    for (std::size_t i = 0; i < memory.size(); ++i) rows[i].grad = memory[i][grad].at();
  }
  adamw_status call(std::int64_t step) {
    for (adamw_tensor &row : rows) row.step = step;
    return adamw_step(&options, rows.data(), sizeof rows[0], static_cast<std::int64_t>(rows.size()));
  }
  void run(int steps) {
    for (int step = 1; step <= steps; ++step) {
      new_gradients(static_cast<std::uint64_t>(step));
      CHECK(call(step) == ADAMW_OK, "step %d: %s", step, adamw_last_error());
    }
  }
  // Everything that a step may write, and the gradients.
  std::vector<std::uint8_t> contents() const {
    std::vector<std::uint8_t> all;
    all.reserve(bytes());
    for (const auto &buffers : memory)
      for (const Bytes &b : buffers) all.insert(all.end(), b.memory.begin(), b.memory.end());
    return all;
  }
  std::size_t bytes() const {
    std::size_t all = 0;
    for (const auto &buffers : memory)
      for (const Bytes &b : buffers) all += b.memory.size();
    return all;
  }
  // Whether contents() is this, without a copy.
  bool holds(const std::vector<std::uint8_t> &must) const {
    const std::uint8_t *at = must.data();
    for (const auto &buffers : memory)
      for (const Bytes &b : buffers) {
        if (!b.memory.empty() && std::memcmp(b.memory.data(), at, b.memory.size()) != 0) return false;
        at += b.memory.size();
      }
    return at == must.data() + must.size();
  }
};
