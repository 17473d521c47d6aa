// Owns the law of the order in which a step uses pages: what it touches has arrived, what it has given back it leaves
// alone, no window holds two loans, none is more than the windows there are. A backing that plays disk and device moves
// bytes whenever a random schedule wants, as late or as early as the protocol allows, and takes away the memory in
// between.
#include <sys/mman.h>

#include <deque>

#include "../../libadamw/pager/pager.h"
#include "../../libadamw/platform.h"
#include "paged_model.h"

namespace {

using adamw::Backing;
using adamw::Buffer;
using adamw::Loan;
using adamw::page_windows;
using adamw::Piece;

constexpr std::int64_t chunk = 3 << 15;  // a segment of a measured row fits

class PlayedBacking;
PlayedBacking *played = nullptr;  // the last one that was made

class PlayedBacking final : public Backing {
 public:
  explicit PlayedBacking(adamw::PagerCounts &counts) : Backing(counts) {
    for (Window &w : windows_) {
      w.memory = static_cast<char *>(adamw::map_memory(chunk));
      allow(w, false);
    }
    played = this;
  }
  ~PlayedBacking() override {
    for (Window &w : windows_) adamw::unmap_memory(w.memory, chunk);
  }

  Random random{1};
  bool resident = false;  // what is allocated from now on is used where it lies
  std::int64_t loans = 0, max_out = 0;

  // From now on the state of buffers is out of the program's reach; then it is back.
  void hide() {
    for (auto &[memory, stored] : stored_) {
      std::memcpy(stored.data(), memory, stored.size());
      mprotect(memory, stored.size(), PROT_NONE);
    }
    hidden_ = true;
  }
  void show() {
    settle();
    for (auto &[memory, stored] : stored_) {
      mprotect(memory, stored.size(), PROT_READ | PROT_WRITE);
      std::memcpy(memory, stored.data(), stored.size());
    }
    hidden_ = false;
  }

  std::int64_t windows_bytes() const override { return page_windows * chunk; }
  adamw_status allocate(const char *, Buffer *buffer) override {
    buffer->memory = adamw::map_memory(buffer->bytes);
    buffer->own = resident ? nullptr : buffer->memory;
    // The single scale of a tensor is used where it lies.
    if (!resident && buffer->bytes > 4) stored_[buffer->memory].resize(static_cast<std::size_t>(buffer->bytes));
    return ADAMW_OK;
  }
  void free(Buffer &buffer) override {
    stored_.erase(buffer.memory);
    adamw::unmap_memory(buffer.memory, buffer.bytes);
  }
  bool moves(const Buffer &buffer) const override { return buffer.own != nullptr; }

  adamw_status begin(const char *, void *) override {
    CHECK(!in_call_, "begin() twice");
    in_call_ = true;
    next_ = 0;
    return ADAMW_OK;
  }
  adamw_status end(const char *, void *) override {
    CHECK(in_call_, "end() without begin()");
    for (const Window &w : windows_) CHECK(w.state == Window::idle || w.state == Window::leaving, "a loan at the end");
    settle();
    in_call_ = false;
    return ADAMW_OK;
  }
  void abandon() override {
    settle();
    for (Window &w : windows_) w.state = Window::idle;
    in_call_ = false;
  }
  adamw_status wait(const char *) override { return ADAMW_OK; }

  adamw_status fetch(const char *, Loan &loan, void *) override {
    CHECK(in_call_, "fetch() outside of a call");
    CHECK(loan.window == next_ % page_windows, "window %d, in turn is %d", loan.window, next_ % page_windows);
    ++next_;
    ++loans;
    Window &w = windows_[loan.window];
    CHECK(w.state == Window::idle || w.state == Window::leaving, "window %d holds a loan", loan.window);
    if (w.state == Window::leaving) finish_one(w);
    std::int64_t bytes = 0;
    for (const Piece &piece : loan.pieces) {
      check_within(piece);
      bytes += piece.bytes;
    }
    CHECK(bytes > 0 && bytes <= chunk, "%lld bytes in a window", static_cast<long long>(bytes));
    w.state = Window::coming;
    w.pieces = loan.pieces;
    const auto out = std::count_if(windows_, windows_ + page_windows, [](const Window &x) {
      return x.state != Window::idle && x.state != Window::leaving;
    });
    max_out = std::max<std::int64_t>(max_out, out);
    some();
    return ADAMW_OK;
  }
  adamw_status arrive(const char *, Loan &loan, void *) override {
    some();
    Window &w = windows_[loan.window];
    CHECK(w.state == Window::coming || w.state == Window::there, "arrive() in state %d", w.state);
    if (w.state == Window::coming) finish_one(w);
    w.state = Window::lent;
    allow(w, true);
    loan.pieces = w.pieces;
    return ADAMW_OK;
  }
  adamw_status give_back(const char *, Loan &loan, bool dirty, void *) override {
    Window &w = windows_[loan.window];
    CHECK(w.state == Window::lent, "give_back() in state %d", w.state);
    w.state = dirty ? Window::leaving : Window::idle;
    allow(w, false);
    some();
    return ADAMW_OK;
  }

 private:
  struct Window {
    char *memory;
    enum State { idle, coming, there, lent, leaving } state = idle;
    std::vector<Piece> pieces;
  };

  static void allow(Window &w, bool yes) { mprotect(w.memory, chunk, yes ? PROT_READ | PROT_WRITE : PROT_NONE); }
  char *truth(const Piece &piece) {
    const auto it = stored_.find(piece.buffer->memory);
    if (it == stored_.end() || !hidden_) return static_cast<char *>(piece.home);
    return it->second.data() + (static_cast<char *>(piece.home) - static_cast<char *>(piece.buffer->memory));
  }
  static void check_within(const Piece &piece) {
    const char *begin = static_cast<const char *>(piece.buffer->memory), *home = static_cast<const char *>(piece.home);
    CHECK(home >= begin && home + piece.bytes <= begin + piece.buffer->bytes, "a piece outside of its buffer");
  }

  // Does now what was only asked for. Windows' memory is 0xff, which is no number, wherever nothing was brought in.
  void finish_one(Window &w) {
    allow(w, true);
    if (w.state == Window::coming) {
      std::memset(w.memory, 0xff, chunk);
      std::int64_t at = 0;
      for (Piece &piece : w.pieces) {
        piece.usable = w.memory + at;
        std::memcpy(piece.usable, truth(piece), static_cast<std::size_t>(piece.bytes));
        at += adamw::round_up(piece.bytes, 64);
      }
      w.state = Window::there;
    } else {
      for (const Piece &piece : w.pieces)
        std::memcpy(truth(piece), piece.usable, static_cast<std::size_t>(piece.bytes));
      w.state = Window::idle;
    }
    allow(w, false);
  }
  void some() {
    for (int i = static_cast<int>(random.below(5)); i > 0; --i) {
      Window &w = windows_[random.below(page_windows)];
      if (w.state == Window::coming || w.state == Window::leaving) finish_one(w);
    }
  }
  void settle() {
    for (Window &w : windows_)
      if (w.state == Window::leaving) finish_one(w);
  }

  Window windows_[page_windows];
  std::map<void *, std::vector<char>> stored_;
  bool hidden_ = false, in_call_ = false;
  int next_ = 0;
};

adamw_status make_played(const char *, const adamw::PagerOptions &, adamw::PagerCounts &counts,
                         std::unique_ptr<Backing> *backing) {
  *backing = std::make_unique<PlayedBacking>(counts);
  return ADAMW_OK;
}

const std::vector<TensorShape> shapes = {{1, 1, 0},      {5, 100, 0},   {1, 0, 0},     {300, 301, 0}, {1, 33, 0},
                                         {1, 200001, 0}, {3, 30003, 0}, {200, 512, 0}, {1, 257, 0}};

// The steps without paging: each one's gradients, and what it left.
struct Unpaged {
  static constexpr int steps = 2;
  std::vector<Model> models;  // after step 1, 2, ...
  std::vector<std::vector<std::uint8_t>> contents;

  explicit Unpaged(const adamw_step_options &options) {
    Model model(options, shapes);
    for (int step = 1; step <= steps; ++step) {
      model.new_gradients(static_cast<std::uint64_t>(step));
      CHECK(model.call(step) == ADAMW_OK, "%s", adamw_last_error());
      models.push_back(model);
      contents.push_back(model.contents());
    }
  }
};

void check_order(const adamw_step_options &options, const Unpaged &unpaged, std::uint64_t seed) {
  // The name of the backing matters to nobody but a step that asks whether there is anything to bring in.
  adamw_pager pager({ADAMW_PLACE_FILE, -1, 0, chunk, 0, ""});
  CHECK(pager.open("test", make_played) == ADAMW_OK, "open");
  played->random = Random(seed);
  {
    PagedModel paged(&pager, options, shapes);
    for (int step = 1; step <= Unpaged::steps; ++step) {
      const auto done = static_cast<std::size_t>(step - 1);
      paged.take_gradients(unpaged.models[done]);
      played->hide();
      CHECK(paged.call(step) == ADAMW_OK, "%s", adamw_last_error());
      played->show();
      CHECK(unpaged.contents[done] == paged.paged_contents(), "format %d, flags %u, clipping %d, seed %llu: step %d",
            options.state_format, options.flags, options.percentile_clipping, static_cast<unsigned long long>(seed),
            step);
    }
    CHECK(played->loans > 2 * page_windows, "only %lld loans", static_cast<long long>(played->loans));
    CHECK(played->max_out == page_windows - 1, "%lld loans at a time", static_cast<long long>(played->max_out));
  }
}

}  // namespace

int main() {
  for (int format = ADAMW_STATE_FLOAT32; format <= ADAMW_STATE_BFLOAT16; ++format) {
    for (std::uint32_t flags : {0u, unsigned{ADAMW_STEP_AMSGRAD}}) {
      for (bool norms : {false, true}) {
        adamw_step_options o = step_options(static_cast<adamw_state_format>(format), flags);
        if (flags != 0) o.param_dtype = ADAMW_BFLOAT16, o.remainder_bits = norms ? 8 : 16;
        if (norms) o.percentile_clipping = 30, o.max_unorm = 0.01;
        const Unpaged unpaged(o);
        for (std::uint64_t seed = 1; seed <= (abridged ? 2 : 6); ++seed) {
          o.num_threads = 1 + static_cast<int>(seed % 2);
          check_order(o, unpaged, seed);
        }
      }
    }
  }
  return finish();
}
