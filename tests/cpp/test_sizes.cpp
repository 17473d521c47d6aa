// Owns the laws of struct sizes: what a program of an older or a newer adamw.h passes is read as far as both know it,
// and refused, with nothing written, where it asks for something that this library does not know.
#include "sizes.h"

namespace {

Model everything() {
  adamw_step_options o = step_options(ADAMW_STATE_BLOCK8, ADAMW_STEP_AMSGRAD);
  o.percentile_clipping = 50;
  Model model(o, {{2, 20, 0}, {3, 70, 5}, {1, 600, 0}});
  model.run(1);
  model.new_gradients(2);
  for (adamw_tensor &row : model.rows) row.step = 2;
  return model;
}

const std::vector<std::uint8_t> &expected() {
  static const std::vector<std::uint8_t> contents = [] {
    Model model = everything();
    CHECK(model.call(2) == ADAMW_OK, "%s", adamw_last_error());
    return model.contents();
  }();
  return contents;
}

// Law: options of a step in any size step with the same bits, and fields that are there are used.
void check_step_options() {
  Model model = everything();
  const std::vector<std::uint8_t> before = model.contents();
  const auto step = [&](const adamw_step_options *o) {
    model = everything();
    return adamw_step(o, model.rows.data(), sizeof model.rows[0], static_cast<std::int64_t>(model.rows.size()));
  };
  check_options(
      "adamw_step_options", model.options, offsetof(adamw_step_options, lr_tensor), step,
      [&] { return model.contents() == expected(); }, [&] { return model.contents() == before; });

  const float lr = 0.5f;
  std::int64_t stepped = -1;
  adamw_step_options o = model.options;
  o.lr_tensor = &lr, o.rows_stepped = &stepped;
  const auto bits = [&](std::size_t size) {
    CHECK(step(options_of_size(o, size).get()) == ADAMW_OK, "%s", adamw_last_error());
    return model.contents();
  };
  const std::vector<std::uint8_t> with_lr = bits(sizeof o);
  CHECK(stepped == 3 && with_lr != expected(), "%d rows are stepped", static_cast<int>(stepped));
  stepped = -1;
  CHECK(bits(offsetof(adamw_step_options, rows_stepped)) == with_lr && stepped == -1, "without rows_stepped");
  const float factor = 0.25f;
  o.grad_factor = &factor;
  CHECK(bits(sizeof o) != with_lr && bits(152) == with_lr, "without grad_factor");
  stepped = -1;
  CHECK(bits(offsetof(adamw_step_options, lr_tensor)) == expected(), "without lr_tensor");
  Sized<adamw_step_options> sized = options_of_size(o, sizeof o + 8);
  sized.at()[sizeof o] = 1;
  check_refused(step(sized.get()), "byte 160 is 1", "a counter");
  CHECK(stepped == -1, "rows_stepped is written by a call that is refused");
}

// The rows of a model in another size.
struct Table {
  std::vector<std::uint64_t> words;
  std::size_t size, count;

  Table(const Model &model, std::size_t bytes) : words(model.rows.size() * bytes / 8), size(bytes), count(0) {
    for (const adamw_tensor &row : model.rows) std::memcpy(at(count++), &row, std::min(size, sizeof row));
  }
  unsigned char *at(std::size_t row) { return reinterpret_cast<unsigned char *>(words.data()) + row * size; }
  adamw_status step(const adamw_step_options &o) {
    return adamw_step(&o, reinterpret_cast<adamw_tensor *>(words.data()), size, static_cast<std::int64_t>(count));
  }
};

// Law: rows in any size step with the same bits, the first time and again; one byte that is unknown in any of them, and
// nothing is written.
void check_rows() {
  constexpr std::size_t known = sizeof(adamw_tensor), least = offsetof(adamw_tensor, run_length);
  for (std::size_t size = least; size <= largest; size += size < known + 16 ? 8 : 1000) {
    Model model = everything();
    const std::vector<std::uint8_t> before = model.contents();
    Table table(model, size);
    for (std::size_t row : {std::size_t{0}, table.count - 1}) {
      for (std::size_t byte : {known, size - 1}) {
        if (byte >= size || byte < known) continue;
        table.at(row)[byte] = 9;
        const std::string words = "tensor " + std::to_string(row) + ": tensor_size = " + std::to_string(size) +
                                  ", and byte " + std::to_string(byte) + " is 9";
        check_refused(table.step(model.options), words, "a row");
        CHECK(model.contents() == before, "row %zu, byte %zu: something was written", row, byte);
        table.at(row)[byte] = 0;
      }
    }
    CHECK(table.step(model.options) == ADAMW_OK, "rows of %zu bytes: %s", size, adamw_last_error());
    CHECK(model.contents() == expected(), "rows of %zu bytes step otherwise", size);
    Model other = everything();
    CHECK(other.call(2) == ADAMW_OK && other.call(3) == ADAMW_OK, "%s", adamw_last_error());
    for (std::size_t i = 0; i < table.count; ++i) reinterpret_cast<adamw_tensor *>(table.at(i))->step = 3;
    CHECK(table.step(model.options) == ADAMW_OK, "rows of %zu bytes, again: %s", size, adamw_last_error());
    CHECK(model.contents() == other.contents(), "rows of %zu bytes step otherwise the second time", size);
    reinterpret_cast<adamw_tensor *>(table.at(1))->numel = -5;
    CHECK(table.step(model.options) == ADAMW_ERROR_INVALID_ARGUMENT, "a wrong row of %zu bytes", size);
    CHECK(std::strstr(adamw_last_error(), "tensor 1: numel = -5") != nullptr, "%s", adamw_last_error());
  }
  Model model = everything();
  const std::vector<std::uint8_t> before = model.contents();
  for (std::size_t size : wrong_sizes(least, known)) {
    const std::string words = "tensor_size = " + std::to_string(size);
    for (std::int64_t count : {0, 3})
      check_refused(adamw_step(&model.options, model.rows.data(), size, count), words, "rows");
  }
  const adamw_status status = adamw_step(&model.options, model.rows.data(), largest, std::int64_t{1} << 54);
  CHECK(status == ADAMW_ERROR_INVALID_ARGUMENT && std::strstr(adamw_last_error(), "pass the end of memory") != nullptr,
        "2^54 rows of 4096 bytes: status %d: %s", status, adamw_last_error());
  CHECK(model.contents() == before, "something was written");
}

// Law: the run of a shard, and a step from memory, are used where the row is long enough to have them.
void check_fields_of_rows() {
  Model model(step_options(ADAMW_STATE_BLOCK8), {{4, 256, 7, 256, 1000}}), flat = model;
  const float step = 40;
  const auto contents = [&](std::size_t size) {
    Model copy(model.options, {{4, 256, 7, 256, 1000}});
    copy.new_gradients(1);
    copy.rows[0].step_tensor = &step;
    Table table(copy, size);
    CHECK(table.step(copy.options) == ADAMW_OK, "%s", adamw_last_error());
    return copy.contents();
  };
  const std::vector<std::uint8_t> all = contents(sizeof(adamw_tensor));
  const std::vector<std::uint8_t> without_step = contents(offsetof(adamw_tensor, step_tensor));
  const std::vector<std::uint8_t> without_runs = contents(offsetof(adamw_tensor, run_length));
  CHECK(contents(sizeof(adamw_tensor) + 8) == all, "larger");
  const auto usual = [&](std::int64_t run_length, std::int64_t run_stride) {
    Model copy(model.options, {{4, 256, 7, run_length, run_stride}});
    copy.new_gradients(1);
    CHECK(copy.call(1) == ADAMW_OK, "%s", adamw_last_error());
    return copy.contents();
  };
  CHECK(without_step == usual(256, 1000) && without_runs == usual(0, 0), "what is missing counts as 0");
  CHECK(all != without_step && without_step != without_runs, "fields that are there change something");
}

// Law: the same for quantization.
void check_quantize_options() {
  constexpr std::int64_t n = 600;
  adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
  o.numel = o.row_length = n;
  o.moment = ADAMW_MOMENT_EXP_AVG_SQ;
  std::vector<float> values(n), target(n), absmax(3), floor(3);
  std::vector<std::uint8_t> codes(n);
  for (std::int64_t i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(i);
  CHECK(adamw_quantize(&o, values.data(), codes.data(), absmax.data(), floor.data()) == ADAMW_OK, "%s",
        adamw_last_error());
  CHECK(adamw_dequantize(&o, codes.data(), absmax.data(), floor.data(), target.data()) == ADAMW_OK, "%s",
        adamw_last_error());
  const std::vector<std::uint8_t> right_codes = codes;
  const std::vector<float> right_target = target;
  constexpr std::size_t least = offsetof(adamw_quantize_options, stream);
  check_options(
      "adamw_quantize_options", o, least,
      [&](const adamw_quantize_options *options) {
        std::fill(codes.begin(), codes.end(), garbage);
        return adamw_quantize(options, values.data(), codes.data(), absmax.data(), floor.data());
      },
      [&] { return codes == right_codes; }, [&] { return codes == std::vector<std::uint8_t>(n, garbage); });
  check_options(
      "adamw_quantize_options, back", o, least,
      [&](const adamw_quantize_options *options) {
        std::fill(target.begin(), target.end(), 77.0f);
        return adamw_dequantize(options, right_codes.data(), absmax.data(), floor.data(), target.data());
      },
      [&] { return target == right_target; }, [&] { return target == std::vector<float>(n, 77.0f); });
}

// Law: the same for master weights.
void check_split_options() {
  constexpr std::int64_t n = 600;
  adamw_split_options o = ADAMW_SPLIT_OPTIONS_INIT;
  o.numel = n, o.remainder_bits = 8, o.rounding = ADAMW_ROUND_STOCHASTIC, o.seed = 5;
  std::vector<float> weights(n), target(n);
  for (std::int64_t i = 0; i < n; ++i) weights[static_cast<std::size_t>(i)] = 1.0f / static_cast<float>(i + 1);
  std::vector<std::uint16_t> param(n), no_param(n, 0xEEEE);
  std::vector<std::uint8_t> rest(n), no_rest(n, garbage);
  CHECK(adamw_split_weights(&o, weights.data(), param.data(), rest.data()) == ADAMW_OK &&
            adamw_join_weights(&o, param.data(), rest.data(), target.data()) == ADAMW_OK,
        "%s", adamw_last_error());
  const std::vector<std::uint16_t> right_param = param;
  const std::vector<std::uint8_t> right_rest = rest;
  const std::vector<float> right_target = target;
  constexpr std::size_t least = offsetof(adamw_split_options, stream);
  check_options(
      "adamw_split_options", o, least,
      [&](const adamw_split_options *options) {
        param = no_param, rest = no_rest;
        return adamw_split_weights(options, weights.data(), param.data(), rest.data());
      },
      [&] { return param == right_param && rest == right_rest; }, [&] { return param == no_param && rest == no_rest; });
  check_options(
      "adamw_split_options, back", o, least,
      [&](const adamw_split_options *options) {
        std::fill(target.begin(), target.end(), 77.0f);
        return adamw_join_weights(options, right_param.data(), right_rest.data(), target.data());
      },
      [&] { return target == right_target; }, [&] { return target == std::vector<float>(n, 77.0f); });
}

// Law: the smallest rows and options have all that master weights need.
void check_smallest() {
  const adamw_step_options o = step_options(ADAMW_STATE_BLOCK8, 0, ADAMW_BFLOAT16, ADAMW_BFLOAT16, 16);
  Model all(o, {{3, 70, 5}}), smallest(o, {{3, 70, 5}});
  for (int step = 1; step <= 3; ++step) {
    for (Model *m : {&all, &smallest}) m->new_gradients(static_cast<std::uint64_t>(step));
    smallest.rows[0].step = step;
    Table table(smallest, 128);
    CHECK(all.call(step) == ADAMW_OK && table.step(*options_of_size(o, 128).get()) == ADAMW_OK, "%s",
          adamw_last_error());
  }
  CHECK(all.contents() == smallest.contents(), "rows and options of 128 bytes step otherwise");
}

// Law: the same for pagers, whose statistics are written as far as both sides know them, and 0 beyond.
void check_pager() {
  adamw_pager_options o = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager *pager = nullptr;
  check_options(
      "adamw_pager_options", o, offsetof(adamw_pager_options, reserve_bytes),
      [&](const adamw_pager_options *options) { return adamw_pager_create(options, &pager); },
      [&] { return pager != nullptr && adamw_pager_destroy(pager) == ADAMW_OK; }, [&] { return pager == nullptr; });
  o.directory = "/nonexistent";  // refused for HOST, where it is there
  CHECK(adamw_pager_create(options_of_size(o, 40).get(), &pager) == ADAMW_OK, "%s", adamw_last_error());

  void *buffer = nullptr;
  CHECK(adamw_pager_alloc(pager, 1000, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  adamw_pager_statistics all{}, unwritten;
  CHECK(adamw_pager_stats(pager, &all, sizeof all) == ADAMW_OK && all.buffers == 1, "%s", adamw_last_error());
  std::memset(static_cast<void *>(&unwritten), garbage, sizeof unwritten);
  constexpr std::size_t least = offsetof(adamw_pager_statistics, bytes_in);
  for (std::size_t size = least; size <= largest; size += size < sizeof all + 16 ? 8 : 1000) {
    Sized<adamw_pager_statistics> is(unwritten, size), must(all, size);
    std::memset(is.at(), garbage, size);
    CHECK(adamw_pager_stats(pager, is.get(), size) == ADAMW_OK, "%zu bytes: %s", size, adamw_last_error());
    CHECK(is.words == must.words && is.lives_behind(), "statistics of %zu bytes", size);
  }
  for (std::size_t size : wrong_sizes(least, sizeof all)) {
    Sized<adamw_pager_statistics> is(unwritten, sizeof all);
    check_refused(adamw_pager_stats(pager, is.get(), size), "size = " + std::to_string(size), "statistics");
    CHECK(std::memcmp(is.at(), &unwritten, sizeof unwritten) == 0, "size %zu: something was written", size);
  }
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "gone");
}

}  // namespace

int main() {
  check_step_options();
  check_rows();
  check_fields_of_rows();
  check_quantize_options();
  check_split_options();
  check_smallest();
  check_pager();
  const adamw_step_options step = ADAMW_STEP_OPTIONS_INIT;
  const adamw_quantize_options quantize = ADAMW_QUANTIZE_OPTIONS_INIT;
  const adamw_split_options split = ADAMW_SPLIT_OPTIONS_INIT;
  const adamw_pager_options pager = ADAMW_PAGER_OPTIONS_INIT;
  check_init("adamw_step_options_init", adamw_step_options_init, step, 128);
  check_init("adamw_quantize_options_init", adamw_quantize_options_init, quantize, 72);
  check_init("adamw_split_options_init", adamw_split_options_init, split, 56);
  check_init("adamw_pager_options_init", adamw_pager_options_init, pager, 32);
  return finish();
}
