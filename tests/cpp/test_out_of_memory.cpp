// Owns the law that memory may run out at any allocation of a step: it succeeds, or it is OUT_OF_MEMORY and has written
// nothing; nothing ends the process or waits for ever; and the next step works.
#include <memory>

#include "out_of_memory.h"

namespace {

struct Setup {
  const char *name;
  int format, clipping, backing, rows;
  std::int64_t numel;
  double max_unorm = 0;
  bool warm = false;  // the process has stepped before, a smaller table
  std::int64_t resident = 0;
  bool on_disk = false;
  int remainder_bits = 0;
  int calls_since_large = 0;  // so many, and before them one of many rows, whose memory is given back one day
};

// What the processes of a case begin with: its models, not stepped yet, and the bytes of one before and after a step.
struct Prepared {
  std::unique_ptr<Model> model, small, many, few;  // null: not needed
  std::vector<std::uint8_t> before, after;
};

struct Stepped {
  std::unique_ptr<Model> model;
  std::int64_t rows_stepped = -77;
  adamw_pager *pager = nullptr;

  bool holds(const std::vector<std::uint8_t> &must) {
    return pager != nullptr ? static_cast<PagedModel &>(*model).paged_holds(must) : model->holds(must);
  }
};

adamw_step_options options_of(const Setup &setup) {
  adamw_step_options o = step_options(static_cast<adamw_state_format>(setup.format), ADAMW_STEP_AMSGRAD);
  if (setup.remainder_bits != 0) o.param_dtype = ADAMW_BFLOAT16, o.remainder_bits = setup.remainder_bits;
  o.percentile_clipping = setup.clipping, o.max_unorm = setup.max_unorm, o.num_threads = ADAMW_TEST_THREADS;
  return o;
}
std::vector<TensorShape> shapes_of(const Setup &setup) {
  return std::vector<TensorShape>(static_cast<std::size_t>(setup.rows), {1, setup.numel, 0});
}

// What a step makes of it, computed in a process of its own, so that this one has never stepped.
std::vector<std::uint8_t> stepped(const char *name, Model &m) {
  const std::size_t bytes = m.bytes();
  void *const shared = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const pid_t child = fork();
  if (child == 0) {
    if (m.call(1) != ADAMW_OK) _exit(1);
    std::memcpy(shared, m.contents().data(), bytes);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0, "%s: the step without failures", name);
  std::vector<std::uint8_t> contents(static_cast<std::uint8_t *>(shared), static_cast<std::uint8_t *>(shared) + bytes);
  munmap(shared, bytes);
  return contents;
}

std::shared_ptr<Prepared> prepared(const Setup &setup) {
  const adamw_step_options o = options_of(setup);
  const std::vector<TensorShape> shapes = shapes_of(setup);
  auto p = std::make_shared<Prepared>();
  p->model = std::make_unique<Model>(o, shapes);
  p->model->new_gradients(1);
  p->before = p->model->contents();
  p->after = stepped(setup.name, *p->model);
  if (setup.warm) p->small = std::make_unique<Model>(o, std::vector<TensorShape>{shapes[0]});
  if (setup.calls_since_large > 0) {
    p->many = std::make_unique<Model>(o, std::vector<TensorShape>(5000, {1, 1, 0}));
    p->few = std::make_unique<Model>(o, shapes);
  }
  return p;
}

// In a process of its own, which takes the models.
Trial step_trial(const Setup &setup, const std::shared_ptr<Prepared> &p) {
  auto s = std::make_shared<Stepped>();
  if (setup.warm) CHECK(p->small->call(1) == ADAMW_OK, "%s", adamw_last_error());
  if (setup.calls_since_large > 0) {
    CHECK(p->many->call(1) == ADAMW_OK, "%s", adamw_last_error());
    for (int i = 0; i < setup.calls_since_large; ++i) CHECK(p->few->call(1) == ADAMW_OK, "%s", adamw_last_error());
  }
  if (setup.backing >= 0) {
    adamw_pager_options options = setup.on_disk ? file_options() : quick_file(setup.resident);
    if (setup.max_unorm > 0) options.chunk_bytes = 1 << 17;  // adamw.h: then it is enough
    if (setup.backing == ADAMW_PLACE_HOST) options = ADAMW_PAGER_OPTIONS_INIT;
    s->pager = new_pager(options);
    s->model = std::make_unique<PagedModel>(s->pager, std::move(*p->model));
  } else {
    s->model = std::move(p->model);
  }
  s->model->options.rows_stepped = &s->rows_stepped;
  for (adamw_tensor &row : s->model->rows) row.step = 1;
  CHECK(s->holds(p->before), "%s: the model before the step", setup.name);
  const auto call = [s] {
    return adamw_step(&s->model->options, s->model->rows.data(), sizeof(adamw_tensor),
                      static_cast<std::int64_t>(s->model->rows.size()));
  };
  const auto judge = [s, p](adamw_status done) -> std::string {
    const auto rows = static_cast<std::int64_t>(s->model->rows.size());
    if (done == ADAMW_OK && s->rows_stepped != rows) return "rows_stepped is " + std::to_string(s->rows_stepped);
    if (done == ADAMW_OK) return s->holds(p->after) ? "" : "other bits than without the failure";
    if (s->rows_stepped != 0 && s->rows_stepped != -77) return "rows_stepped is " + std::to_string(s->rows_stepped);
    return s->holds(p->before) ? "" : "something was written";
  };
  return {call, judge, call, s};
}

}  // namespace

int main() {
  constexpr int none = -1, host = ADAMW_PLACE_HOST, file = ADAMW_PLACE_FILE;
  const Setup setups[] = {
      {"step: float32, 1 row", 0, 100, none, 1, 5000},
      {"step: float32, 20 rows", 0, 100, none, 20, 500},
      {"step: float32, 400 rows, after a step", 0, 100, none, 400, 70, 0, true},
      {"step: block8, 20 rows", 1, 100, none, 20, 5000},
      {"step: block8, 2 rows for several threads", 1, 100, none, 2, 200000},
      {"step: block8, clipping", 1, 5, none, 3, 5000},
      {"step: float32, clipping, max_unorm", 0, 5, none, 3, 5000, 0.1},
      {"step: the same, 20 rows after a step", 0, 5, none, 20, 5000, 0.1, true},
      {"step: tensor8, 3 rows", 2, 100, none, 3, 5000},
      {"step: tensor8, clipping, max_unorm", 2, 5, none, 3, 5000, 0.1},
      {"step: float32, HOST", 0, 100, host, 2, 20000},
      {"step: float32, FILE", 0, 100, file, 3, 30000},
      {"step: float32, FILE, partly resident", 0, 100, file, 3, 30000, 0, false, 500000},
      {"step: block8, FILE", 1, 100, file, 3, 60000},
      {"step: block8, FILE, clipping, max_unorm", 1, 5, file, 2, 60000, 0.1},
      {"step: tensor8, FILE", 2, 100, file, 2, 60000},
      {"step: float32, FILE on a disk, after a step", 0, 100, file, 2, 30000, 0, true, 0, true},
      {"step: block8, 16 bits more, FILE", 1, 100, file, 2, 60000, 0, false, 0, false, 16},
      {"step: bfloat16, 8 bits more, clipping, max_unorm", 3, 5, none, 3, 5000, 0.1, false, 0, false, 8},
      {"step: float32, long after one of 5000 rows", 0, 100, none, 20, 16, 0, false, 0, false, 0, 63},
  };
  std::vector<Case> cases;
  for (const Setup &setup : setups)
    cases.push_back(
        {setup.name, nullptr, [&setup] { return [&setup, p = prepared(setup)] { return step_trial(setup, p); }; }});
  return try_all(cases);
}
