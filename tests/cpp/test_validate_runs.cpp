// Owns the law that run_length and run_stride are taken where adamw.h allows them and refused everywhere else, with a
// sentence that names row, field and value, before one byte has changed.
#include <functional>
#include <string>

#include "model.h"

namespace {

constexpr std::int64_t most = std::int64_t{1} << 62;
constexpr std::size_t flat = 1, following = 3, tiny = 5, empty = 7;  // rows of the model

struct Runs {
  std::int64_t global_offset, length, stride;
};

class Table {
 public:
  explicit Table(const adamw_step_options &options)
      : model_(options, {{1, 9, 0}, {4, 512, 0}, {1, 9, 0}, {6, 300, 0}, {1, 9, 0}, {5, 20, 0}, {1, 9, 0}, {1, 0, 0}}) {
    model_.run(1);
  }

  void taken(std::size_t row, const Runs &runs) {
    CHECK(call(row, runs) == ADAMW_OK, "row %zu, runs of %lld, stride %lld: %s", row,
          static_cast<long long>(runs.length), static_cast<long long>(runs.stride), adamw_last_error());
  }
  void refused(std::size_t row, const char *field, std::int64_t value, const Runs &runs) {
    const auto before = model_.contents();
    const adamw_status got = call(row, runs);
    const std::string message = adamw_last_error(), words = "tensor " + std::to_string(row) + ": " + field + " = " +
                                                            std::to_string(value) + ": must be";
    CHECK(got == ADAMW_ERROR_INVALID_ARGUMENT, "%s: %s", words.c_str(), adamw_status_string(got));
    CHECK(message.find(words) != std::string::npos, "\"%s\" lacks \"%s\"", message.c_str(), words.c_str());
    CHECK(model_.contents() == before, "%s: a buffer has changed", words.c_str());
  }
  void length_refused(std::size_t row, const Runs &runs) { refused(row, "run_length", runs.length, runs); }
  void stride_refused(std::size_t row, const Runs &runs) { refused(row, "run_stride", runs.stride, runs); }

 private:
  adamw_status call(std::size_t row, const Runs &runs) {
    adamw_tensor &t = model_.rows[row];
    const adamw_tensor good = t;
    t.global_offset = runs.global_offset, t.run_length = runs.length, t.run_stride = runs.stride;
    const adamw_status got = model_.call(2);
    t = good;
    return got;
  }

  Model model_;
};

// Law: without runs there is no stride.
void check_none(Table &table) {
  for (std::size_t row : {flat, following, tiny, empty}) {
    table.taken(row, {most - 2048, 0, 0});
    for (std::int64_t bad : {std::int64_t{1}, std::int64_t{-1}, INT64_MIN, INT64_MAX})
      table.stride_refused(row, {0, 0, bad});
  }
}

// Law: runs divide a row of the table.
void check_divisors(Table &table) {
  for (std::int64_t bad :
       {std::int64_t{-1}, std::int64_t{-512}, std::int64_t{768}, std::int64_t{4096}, INT64_MIN, INT64_MAX})
    table.length_refused(flat, {0, bad, most});
  for (std::int64_t good : {std::int64_t{1}, std::int64_t{300}, INT64_MAX}) table.taken(empty, {0, good, good});
  table.length_refused(empty, {0, -1, 5});
}

// Law: no block lies in two runs.
void check_blocks(Table &table) {
  for (std::int64_t good : {256, 512, 1024, 2048}) table.taken(flat, {3, good, good + 5});
  for (std::int64_t bad : {1, 2, 64, 128}) table.length_refused(flat, {0, bad, 5000});
  for (std::int64_t good : {300, 600, 900, 1800}) table.taken(following, {3, good, good});
  for (std::int64_t bad : {1, 100, 150, 200, 450}) table.length_refused(following, {0, bad, 5000});
  table.taken(tiny, {7, 100, 100});
  for (std::int64_t bad : {20, 50}) table.length_refused(tiny, {0, bad, 5000});
}

// Law: runs do not overlap, and end below 2^62.
void check_strides(Table &table) {
  for (std::int64_t bad : {std::int64_t{255}, std::int64_t{0}, std::int64_t{-1}, INT64_MIN})
    table.stride_refused(flat, {0, 256, bad});
  for (std::int64_t bad : {std::int64_t{99}, std::int64_t{0}, INT64_MIN}) table.stride_refused(tiny, {0, 100, bad});
  table.stride_refused(empty, {0, 100, 99});
  constexpr std::int64_t last = (most - 256) / 7;  // of the last of eight runs
  for (std::int64_t offset : {std::int64_t{0}, std::int64_t{7 * 1000}}) {
    table.taken(flat, {offset, 256, last - offset / 7});
    table.stride_refused(flat, {offset, 256, last - offset / 7 + 1});
    for (std::int64_t bad : {most, INT64_MAX / 7, INT64_MAX}) table.stride_refused(flat, {offset, 256, bad});
  }
  table.stride_refused(flat, {most - 2048, 1024, 1025});
  table.taken(flat, {most - 2048, 1024, 1024});
  table.taken(flat, {most - 2048, 2048, INT64_MAX});  // one run: nothing is that far apart
  table.refused(flat, "global_offset", most - 2047, {most - 2047, 1024, 1024});
}

}  // namespace

int main() {
  for (int format : {ADAMW_STATE_FLOAT32, ADAMW_STATE_BLOCK8, ADAMW_STATE_TENSOR8, ADAMW_STATE_BFLOAT16}) {
    adamw_step_options options = step_options(static_cast<adamw_state_format>(format), ADAMW_STEP_AMSGRAD);
    options.percentile_clipping = 50;
    Table table(options);
    check_none(table);
    check_divisors(table);
    check_blocks(table);
    check_strides(table);
  }
  return finish();
}
