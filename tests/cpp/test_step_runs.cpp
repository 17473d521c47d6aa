// Owns the law that a tensor which is cut on any dimensions steps as the whole does, through the public C API. (Cut
// between rows of dimension 0 only, where the shards' elements are neighbours: test_step.cpp.)
#include "model.h"

namespace {

using Size = std::int64_t[3];

// A tensor of three dimensions and where each is cut, ends included. `row_of_run`: the table says that a run is a row,
// as it may with 32-bit state.
struct Cut {
  Size size;
  std::vector<std::int64_t> at[3];
  std::int64_t global_offset = 0;
  bool row_of_run = false;
};

// Of matrices, columns or rows and columns; of three dimensions, the last or the middle one, some with rows. Where the
// whole's blocks follow rows, those of its last shard do, or of all; indices begin at 0, in the middle, near 2^35,
// beyond.
const std::vector<Cut> cuts = {{{12, 1, 768}, {{0, 12}, {0, 1}, {0, 256, 768}}},
                               {{12, 1, 600}, {{0, 12}, {0, 1}, {0, 512, 600}}},
                               {{7, 1, 856}, {{0, 7}, {0, 1}, {0, 256, 856}}, (std::int64_t{1} << 41) + 13},
                               {{12, 1, 1024}, {{0, 1, 5, 12}, {0, 1}, {0, 512, 768, 1024}}},
                               {{9, 1, 600}, {{0, 4, 9}, {0, 1}, {0, 256, 512, 600}}, 1000},
                               {{4, 3, 768}, {{0, 4}, {0, 3}, {0, 256, 768}}},
                               {{4, 3, 512}, {{0, 1, 4}, {0, 3}, {0, 256, 512}}, (std::int64_t{1} << 35) - 4096},
                               {{5, 6, 128}, {{0, 2, 5}, {0, 2, 6}, {0, 128}}}};
// With 32-bit state shards may end anywhere.
const std::vector<Cut> finer = {{{9, 1, 300}, {{0, 9}, {0, 1}, {0, 100, 300}}, 5},
                                {{4, 5, 170}, {{0, 3, 4}, {0, 5}, {0, 65, 170}}, 0, true},
                                {{6, 8, 33}, {{0, 6}, {0, 3, 8}, {0, 33}}, 7}};

// A shard: elements [begin, end) of each dimension, and the row of a table that says so.
struct Shard {
  Size begin, end;
  TensorShape shape;

  Shard(const Cut &cut, std::size_t i, std::size_t j, std::size_t k)
      : begin{cut.at[0][i], cut.at[1][j], cut.at[2][k]},
        end{cut.at[0][i + 1], cut.at[1][j + 1], cut.at[2][k + 1]},
        shape{} {
    const std::int64_t columns = length(2), middle = length(1) * columns, row = cut.row_of_run ? columns : middle;
    shape = {length(0) * middle / row, row, cut.global_offset + place(cut, begin[0], begin[1], begin[2])};
    if (columns < cut.size[2]) {
      shape.run_length = columns, shape.run_stride = cut.size[2];
    } else if (length(1) < cut.size[1]) {
      shape.run_length = middle, shape.run_stride = cut.size[1] * cut.size[2];
    }
  }
  std::int64_t length(int d) const { return end[d] - begin[d]; }
  static std::int64_t place(const Cut &cut, std::int64_t i, std::int64_t j, std::int64_t k) {
    return (i * cut.size[1] + j) * cut.size[2] + k;
  }
};

std::vector<Shard> shards_of(const Cut &cut) {
  std::vector<Shard> shards;
  for (std::size_t i = 0; i + 1 < cut.at[0].size(); ++i)
    for (std::size_t j = 0; j + 1 < cut.at[1].size(); ++j)
      for (std::size_t k = 0; k + 1 < cut.at[2].size(); ++k) shards.emplace_back(cut, i, j, k);
  return shards;
}

std::size_t scale_of(const adamw_tensor &row, std::int64_t element) {
  adamw_state_layout layout;
  CHECK(adamw_get_state_layout(ADAMW_STATE_BLOCK8, row.numel, row.row_length, 0, 0, &layout) == ADAMW_OK, "layout");
  const std::int64_t length = layout.blocks_per_row != 0 ? row.row_length : row.numel;
  return static_cast<std::size_t>(element / length * layout.blocks_per_row + element % length / ADAMW_BLOCK_SIZE);
}

// Calls copy(element's bytes in the whole, in the shard, how many) for a buffer's elements, or for their scales.
template <class Copy>
void over_elements(const Cut &cut, Model &whole, Model &shards, std::size_t number, Model::Buffer buffer,
                   const Copy &copy) {
  const Shard shard = shards_of(cut)[number];
  Bytes &all = whole.memory[0][buffer], &own = shards.memory[number][buffer];
  const adamw_tensor &row = shards.rows[number];
  const bool scales = buffer >= Model::absmax0 && buffer < Model::history;
  const std::size_t size = scales ? 4 : own.memory.size() / static_cast<std::size_t>(row.numel);
  std::int64_t element = 0;
  for (std::int64_t i = shard.begin[0]; i < shard.end[0]; ++i) {
    for (std::int64_t j = shard.begin[1]; j < shard.end[1]; ++j) {
      for (std::int64_t k = shard.begin[2]; k < shard.end[2]; ++k, ++element) {
        const std::int64_t place = Shard::place(cut, i, j, k);
        const std::size_t from = scales ? scale_of(whole.rows[0], place) : static_cast<std::size_t>(place),
                          to = scales ? scale_of(row, element) : static_cast<std::size_t>(element);
        copy(all.memory.data() + from * size, own.memory.data() + to * size, size);
      }
    }
  }
}

// Law: a tensor that is cut on any of its dimensions, with global_offset, run_length and run_stride, steps as the whole
// does.
void check_cut(const adamw_step_options &options, const Cut &cut) {
  const std::vector<Shard> all = shards_of(cut);
  std::vector<TensorShape> shapes;
  for (const Shard &shard : all) shapes.push_back(shard.shape);
  Model whole(options, {{cut.size[0], cut.size[1] * cut.size[2], cut.global_offset}}), shards(options, shapes);
  const auto take = [](std::uint8_t *from, std::uint8_t *to, std::size_t size) { std::memcpy(to, from, size); };
  for (std::size_t i = 0; i < all.size(); ++i) over_elements(cut, whole, shards, i, Model::param, take);
  for (int step = 1; step <= (abridged ? 2 : 4); ++step) {
    whole.new_gradients(static_cast<std::uint64_t>(step));
    for (std::size_t i = 0; i < all.size(); ++i) over_elements(cut, whole, shards, i, Model::grad, take);
    for (Model *model : {&whole, &shards}) CHECK(model->call(step) == ADAMW_OK, "%s", adamw_last_error());
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (int buffer = Model::param; buffer < Model::buffer_count; ++buffer) {
      if (buffer == Model::history || shards.memory[i][static_cast<std::size_t>(buffer)].memory.empty()) continue;
      bool same = true;
      const auto compare = [&](const std::uint8_t *left, const std::uint8_t *right, std::size_t size) {
        same = same && std::memcmp(left, right, size) == 0;
      };
      over_elements(cut, whole, shards, i, static_cast<Model::Buffer>(buffer), compare);
      CHECK(same, "format %d flags %u, %lld x %lld x %lld, shard %zu: buffer %d differs", options.state_format,
            options.flags, static_cast<long long>(cut.size[0]), static_cast<long long>(cut.size[1]),
            static_cast<long long>(cut.size[2]), i, buffer);
    }
  }
}

}  // namespace

int main() {
  constexpr std::uint32_t amsgrad = ADAMW_STEP_AMSGRAD, stochastic = ADAMW_STEP_STOCHASTIC_ROUNDING;
  const adamw_step_options blocks = step_options(ADAMW_STATE_BLOCK8),
                           blocks_amsgrad =
                               step_options(ADAMW_STATE_BLOCK8, amsgrad | stochastic, ADAMW_FLOAT16, ADAMW_BFLOAT16),
                           floats = step_options(ADAMW_STATE_FLOAT32, stochastic, ADAMW_BFLOAT16, ADAMW_BFLOAT16),
                           floats_amsgrad =
                               step_options(ADAMW_STATE_FLOAT32, amsgrad | stochastic, ADAMW_BFLOAT16, ADAMW_FLOAT32),
                           halves = step_options(ADAMW_STATE_BFLOAT16, amsgrad, ADAMW_FLOAT32, ADAMW_BFLOAT16),
                           weights = step_options(ADAMW_STATE_FLOAT32, 0, ADAMW_BFLOAT16, ADAMW_BFLOAT16, 8),
                           weights_blocks = step_options(ADAMW_STATE_BLOCK8, 0, ADAMW_BFLOAT16, ADAMW_FLOAT32, 8),
                           weights_halves =
                               step_options(ADAMW_STATE_BFLOAT16, amsgrad, ADAMW_BFLOAT16, ADAMW_FLOAT32, 16);
  for (const Cut &cut : cuts) {
    for (const adamw_step_options &options :
         {blocks, blocks_amsgrad, floats, floats_amsgrad, halves, weights, weights_blocks, weights_halves})
      check_cut(options, cut);
  }
  for (const Cut &cut : finer) {
    for (const adamw_step_options &options : {floats, floats_amsgrad, halves, weights, weights_halves})
      check_cut(options, cut);
  }
  return finish();
}
