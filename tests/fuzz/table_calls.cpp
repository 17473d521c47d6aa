// Owns fuzzed steps of tables of many small rows whose buffers lie side by side, each table called again and again: as
// it was, with other gradients, with its rows in another order, and with a buffer moved to where it fits, or nearly.
#include <algorithm>

#include "other_calls.h"
#include "step_run.h"

namespace {

struct Ground {  // buffers are taken from it one after the other
  Buffer &buffer;
  std::size_t used = 0;

  std::uint8_t *take(std::size_t bytes, std::size_t alignment, std::size_t gap) {
    used = (used + alignment - 1) / alignment * alignment + gap * alignment;
    std::uint8_t *const at = buffer.at + used;
    used += bytes;
    return used <= buffer.bytes ? at : nullptr;
  }
};

class Table {
 public:
  Table(Choices &choices, Memory &memory)
      : choices_(choices),
        memory_(memory),
        ground_{memory.take(400000, choices.below(2) == 0)},
        random_(choices.bits(4)) {
    input_.options = reinterpret_cast<adamw_step_options *>(memory.take(sizeof(adamw_step_options), true).at);
    *input_.options = ADAMW_STEP_OPTIONS_INIT;
    input_.options->state_format = choices.below(4);
    if (choices.below(3) == 0) {
      input_.options->param_dtype = ADAMW_BFLOAT16;
      input_.options->remainder_bits = choices.of({8, 16});
    }
    input_.options->num_threads = 1 + choices.below(3);
    if (choices.below(4) == 0) input_.options->flags = ADAMW_STEP_AMSGRAD;
    input_.rows = input_.count = 8 + choices.below(choices.below(4) == 3 ? 120 : 12);
    input_.tensor_size = sizeof(adamw_tensor);
    input_.comparable = true;
    const std::size_t bytes = static_cast<std::size_t>(input_.rows) * sizeof(adamw_tensor);
    input_.tensors = reinterpret_cast<adamw_tensor *>(memory.take(bytes, true).at);
    std::memset(static_cast<void *>(input_.tensors), 0, bytes);
    std::memset(ground_.buffer.at, 0, ground_.buffer.bytes);
    for (std::int64_t i = 0; i < input_.rows; ++i) row(input_.tensors[i]);
    if (choices.below(2) == 0) shuffle();
  }

  void live() {
    for (int n = 2 + choices_.below(4); n > 0; --n) {
      run_step(input_, choices_, memory_);
      const std::vector<adamw_tensor> right(input_.tensors, input_.tensors + input_.rows);
      switch (choices_.below(6)) {
        case 0:
          break;
        case 1:
          for (std::int64_t i = 0; i < input_.rows; ++i) gradient(input_.tensors[i]);
          break;
        case 2:
          shuffle();
          break;
        case 3:
          input_.count = input_.rows = 8 + choices_.below(static_cast<int>(input_.rows - 7));
          break;
        default:  // once, and then as before
          move_one();
          run_step(input_, choices_, memory_);
          std::copy(right.begin(), right.begin() + input_.rows, input_.tensors);
          break;
      }
    }
  }

 private:
  Choices &choices_;
  Memory &memory_;
  Ground ground_;
  Random random_;
  StepInput input_{};

  void shuffle() {
    for (std::int64_t i = input_.rows - 1; i > 0; --i)
      std::swap(input_.tensors[i], input_.tensors[random_.below(static_cast<int>(i + 1))]);
  }
  void gradient(adamw_tensor &t) {
    auto *const grad = reinterpret_cast<float *>(ground_.take(static_cast<std::size_t>(t.numel) * 4, 4, 0));
    if (grad == nullptr) return;  // the old ones will do
    for (std::int64_t i = 0; i < t.numel; ++i) grad[i] = random_.uniform();
    t.grad = grad;
  }
  void row(adamw_tensor &t) {
    t.numel = t.row_length = 1 + random_.below(40);
    t.step = 1;
    const auto n = static_cast<std::size_t>(t.numel), gap = static_cast<std::size_t>(random_.below(2));
    const auto rest = static_cast<std::size_t>(input_.options->remainder_bits / 8);
    const std::size_t size = input_.options->state_format == ADAMW_STATE_FLOAT32    ? 4
                             : input_.options->state_format == ADAMW_STATE_BFLOAT16 ? 2
                                                                                    : 1;
    t.param = rest == 0 ? ground_.take(n * 4, 4, gap) : ground_.take(n * 2, 2, gap);
    if (rest != 0) t.param_remainder = ground_.take(n * rest, rest, gap);
    gradient(t);
    for (void **moment : {&t.exp_avg, &t.exp_avg_sq, &t.max_exp_avg_sq}) {
      *moment = ground_.take(n * size, size, gap);
      if (size == 1 && moment == &t.exp_avg) std::memset(*moment, 128, n);
    }
    for (float **scale : {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.max_exp_avg_sq_absmax, &t.exp_avg_sq_floor,
                          &t.max_exp_avg_sq_floor})
      *scale = reinterpret_cast<float *>(ground_.take(4, 4, gap));
  }
  // A buffer goes to where some other begins or ends, or some bytes before or behind that.
  void move_one() {
    adamw_tensor &t = input_.tensors[random_.below(static_cast<int>(input_.rows))];
    const adamw_tensor &other = input_.tensors[random_.below(static_cast<int>(input_.rows))];
    char *const near = static_cast<char *>(choices_.of<void *>(
        {other.param, other.exp_avg, other.exp_avg_sq, other.exp_avg_sq_floor, other.param_remainder}));
    if (near == nullptr) return;
    char *const to = near + choices_.of({0, -1, 1, 4, -4}) * (choices_.below(2) == 0 ? 1 : static_cast<int>(t.numel));
    switch (choices_.below(5)) {
      case 0:
        t.param = to;
        break;
      case 3:
        t.param_remainder = to;
        break;
      case 1:
        t.grad = to;
        break;
      case 2:
        t.exp_avg = to;
        break;
      default:
        t.exp_avg_sq = to;
        break;
    }
  }
};

}  // namespace

void fuzz_table(Choices &choices, Memory &memory) { Table(choices, memory).live(); }
