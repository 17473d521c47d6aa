// Owns the laws of a pager where the disk or the caller fails: a status that says so, and nothing lost. The calls that
// fail are stand-ins for the system's.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "../../libadamw/pager/file.h"
#include "children.h"
#include "paged_model.h"

namespace {

const std::vector<TensorShape> shapes = {{1, 5000, 0}, {130, 301, 0}, {1, 90000, 256}, {1, 33, 0}, {20, 1000, 0}};

// Which call from now on fails, and all after it; and how.
struct Plan {
  std::atomic<int> reads{1 << 30}, writes{1 << 30}, reserves{1 << 30};
  int error = EIO;
} plan;

ssize_t read_or_fail(int file, void *memory, std::size_t bytes, off_t offset) {
  if (plan.reads-- > 0) return pread(file, memory, bytes, offset);
  return errno = plan.error, -1;
}
ssize_t write_or_fail(int file, const void *memory, std::size_t bytes, off_t offset) {
  if (plan.writes-- > 0) return pwrite(file, memory, bytes, offset);
  return errno = plan.error, -1;
}
int reserve_or_fail(int file, int mode, off_t offset, off_t bytes) {
  if (plan.reserves-- > 0) return fallocate(file, mode, offset, bytes);
  return errno = plan.error, -1;
}
void works() {
  plan.reads = plan.writes = plan.reserves = 1 << 30;
  plan.error = EIO;
}

std::string error_text() { return adamw_last_error(); }
bool says(const char *words) { return error_text().find(words) != std::string::npos; }

// Bytes [from, to) of one buffer of one tensor, in both models.
bool same(const Model &a, const Model &b, std::size_t tensor, int buffer, std::size_t from, std::size_t to) {
  const auto k = static_cast<std::size_t>(buffer);
  return std::memcmp(a.memory[tensor][k].memory.data() + from, b.memory[tensor][k].memory.data() + from, to - from) ==
         0;
}

// Elements [from, to) of a tensor are as in `must`: parameter and state, scales by the blocks that lie within.
void check_elements(const Model &is, const Model &must, std::size_t tensor, std::int64_t from, std::int64_t to,
                    const char *what, const std::vector<TensorShape> &of = shapes) {
  const bool eight = is.options.state_format != ADAMW_STATE_FLOAT32;
  const auto begin = static_cast<std::size_t>(from), end = static_cast<std::size_t>(to),
             unit = std::size_t{eight ? 1u : 4u};
  CHECK(same(is, must, tensor, Model::param, begin * 4, end * 4), "%s: parameters of tensor %zu", what, tensor);
  for (int b : {Model::exp_avg, Model::exp_avg_sq, Model::max_exp_avg_sq})
    CHECK(same(is, must, tensor, b, begin * unit, end * unit), "%s: buffer %d of tensor %zu", what, b, tensor);
  if (!eight || of[tensor].rows != 1 || from == to) return;
  const std::size_t first = begin / 256, last = to == is.rows[tensor].numel ? (end + 255) / 256 : end / 256;
  for (int b : {Model::absmax0, Model::absmax1, Model::absmax2, Model::floor1, Model::floor2})
    CHECK(same(is, must, tensor, b, first * 4, last * 4), "%s: scales or floors %d of tensor %zu", what, b, tensor);
}

// Without paging, after the first and after the second step.
struct Unpaged {
  Model before, after;
  explicit Unpaged(const adamw_step_options &options) : before(options, shapes), after(options, shapes) {
    before.run(1);
    after.run(2);
  }
};

// Law: whichever read or write fails, the rows said to be stepped are, the next one up to the element said, the others
// are not; and the step after it, once the disk works again, goes on from there.
bool check_failing(const adamw_step_options &options, const Unpaged &unpaged, bool reads, int call) {
  works();
  adamw_pager *pager = new_pager(file_options());
  bool failed = false;
  {
    const Model &before = unpaged.before, &after = unpaged.after;
    PagedModel paged(pager, options, shapes);
    paged.take_gradients(before);
    CHECK(paged.call(1) == ADAMW_OK, "%s", adamw_last_error());
    std::int64_t rows = -1;
    paged.options.rows_stepped = &rows;
    paged.take_gradients(after);
    (reads ? plan.reads : plan.writes) = call;
    const adamw_status status = paged.call(2);
    failed = status != ADAMW_OK;
    const std::string error = error_text();
    works();
    char what[200];
    std::snprintf(what, sizeof what, "format %d: %s %d fails: %s", options.state_format, reads ? "read" : "write", call,
                  error.c_str());
    if (failed) {
      CHECK(status == ADAMW_ERROR_STORAGE, "%s: status %d", what, status);
      CHECK(error.find(std::strerror(EIO)) != std::string::npos && error.find("stepped") != std::string::npos, "%s",
            what);
      CHECK(rows >= 0 && rows <= static_cast<std::int64_t>(shapes.size()), "%s: %lld rows", what,
            static_cast<long long>(rows));
    }
    paged.paged_contents();
    std::int64_t part = 0;
    const std::size_t at = error.find("up to element ");
    if (failed && at != std::string::npos) part = std::atoll(error.c_str() + at + 14);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const std::int64_t n = paged.rows[i].numel, done = static_cast<std::int64_t>(i) < rows    ? n
                                                         : static_cast<std::int64_t>(i) == rows ? part
                                                                                                : 0;
      check_elements(paged, after, i, 0, done, what);
      check_elements(paged, before, i, done, n, what);
    }
    paged.options.rows_stepped = nullptr;
    // On from there: the rows that are behind catch up, except the one that is in part.
    std::vector<adamw_tensor> rest(paged.rows.begin() + rows + (part > 0 ? 1 : 0), paged.rows.end());
    if (failed) {
      CHECK(adamw_step(&paged.options, rest.data(), sizeof rest[0], static_cast<std::int64_t>(rest.size())) == ADAMW_OK,
            "%s: %s", what, adamw_last_error());
      paged.paged_contents();
      for (std::size_t i = 0; i < shapes.size(); ++i)
        if (part == 0 || static_cast<std::int64_t>(i) != rows)
          check_elements(paged, after, i, 0, paged.rows[i].numel, (std::string(what) + ", then none").c_str());
    }
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  return failed;
}

void check_all_failing() {
  constexpr int first = abridged ? 3 : 8, faster = abridged ? 20 : 5;  // the first calls, and then some
  for (const adamw_state_format format : {ADAMW_STATE_BLOCK8, ADAMW_STATE_FLOAT32}) {
    const adamw_step_options options = step_options(format, ADAMW_STEP_AMSGRAD);
    works();
    const Unpaged unpaged(options);
    for (const bool reads : {true, false}) {
      int call = 0, failing = 0;
      for (int step = 1; check_failing(options, unpaged, reads, call) && failures() < 20; ++failing) {
        call += step;
        if (failing > first) step += faster;
      }
      CHECK(failing > first, "only %d calls", failing);
    }
  }
}

// Law: what cannot be had is an error when it is asked for.
void check_no_room() {
  works();
  adamw_pager_options options = file_options();
  adamw_pager *pager = nullptr;
  options.reserve_bytes = 1 << 20;
  plan.error = ENOSPC;
  plan.reserves = 0;
  CHECK(adamw_pager_create(&options, &pager) == ADAMW_ERROR_STORAGE && pager == nullptr && says("reserve_bytes") &&
            says(std::strerror(ENOSPC)),
        "%s", adamw_last_error());
  works();
  options.reserve_bytes = 0;
  pager = new_pager(options);
  void *buffer = nullptr;
  plan.error = EDQUOT;
  plan.reserves = 0;
  CHECK(adamw_pager_alloc(pager, 5000, &buffer, nullptr) == ADAMW_ERROR_STORAGE && buffer == nullptr &&
            says(std::strerror(EDQUOT)) && says("5000") == false && says("8192"),
        "%s", adamw_last_error());
  CHECK(stats_of(pager).buffers == 0, "a buffer stays");
  works();
  plan.error = EOPNOTSUPP;  // a file system that cannot reserve: zeros do
  plan.reserves = 0;
  for (int round = 0; round < 2; ++round) {
    PagedModel(pager, step_options(), {{1, 70000, 0}}).run(1);
  }
  works();
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: a fork between a disk that fails and one that works again changes nothing; and where there is no room for a
// second copy of what a child has, the call says so, nothing is lost, and it works when there is room.
void check_forks() {
  if (!can_fork) return;
  const std::vector<TensorShape> three = {{1, 90000, 0}, {1, 33, 0}, {1, 50000, 0}};
  for (const bool child_lives : {true, false}) {
    works();
    adamw_pager *pager = new_pager(file_options());
    {
      Model plain(step_options(), three);
      PagedModel paged(pager, step_options(), three);
      plain.run(2);
      paged.run(1);
      paged.new_gradients(2);
      plan.writes = 1;
      std::int64_t rows = -1;
      paged.options.rows_stepped = &rows;
      CHECK(paged.call(2) == ADAMW_ERROR_STORAGE && rows == 0, "%lld rows", static_cast<long long>(rows));
      works();
      const auto at_fork = paged.paged_contents();
      Child child([&] { return paged.paged_contents() == at_fork ? 0 : 1; });  // what is kept is inherited, too
      if (!child_lives) CHECK(child.go() == "", "the child");
      adamw_tensor &last = paged.rows[2];
      last.step = 2;
      plan.error = ENOSPC;
      (child_lives ? plan.reserves : plan.writes) = 0;
      volatile float *const first = static_cast<float *>(last.exp_avg) + 5000;
      *first = *first;  // written, so there is something to bring back
      const adamw_status status = adamw_step(&paged.options, &last, sizeof last, 1);
      CHECK(status == ADAMW_ERROR_STORAGE && says("fork") && says(std::strerror(ENOSPC)) && rows == 0, "%d: %s", status,
            adamw_last_error());
      works();
      CHECK(paged.paged_contents() == at_fork, "a refused call wrote");
      CHECK(adamw_step(&paged.options, &last, sizeof last, 1) == ADAMW_OK, "%s", adamw_last_error());
      paged.paged_contents();
      check_elements(paged, plain, 2, 0, 50000, "after a fork", three);
      if (child_lives) CHECK(child.go() == "", "the child");
    }
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  }
}

void check_directories() {
  adamw_pager_options options = file_options();
  adamw_pager *pager = nullptr;
  for (const char *directory : {"/no/such/directory", "/dev/null", "/proc", ""}) {
    options.directory = directory;
    CHECK(adamw_pager_create(&options, &pager) == ADAMW_ERROR_STORAGE && pager == nullptr && says(directory),
          "'%s': %s", directory, adamw_last_error());
  }
}

void check_refusals() {
  adamw_pager *pager = nullptr;
  const auto refused = [&](const char *word, adamw_pager_options options,
                           adamw_status status = ADAMW_ERROR_INVALID_ARGUMENT) {
    const adamw_status is = adamw_pager_create(&options, &pager);
    CHECK(is == status && pager == nullptr && says(word), "%s: status %d: %s", word, is, adamw_last_error());
  };
  const auto with = [](std::int64_t adamw_pager_options::*field, std::int64_t value) {
    adamw_pager_options o = file_options(0);
    o.*field = value;
    return o;
  };
  adamw_pager_options o = file_options();
  o.size -= 24;
  refused("options.size", o, ADAMW_ERROR_VERSION);
  o = file_options();
  o.backing = 9;
  refused("backing = 9: must be ADAMW_PLACE_HOST, FILE, PINNED or MANAGED", o);
  o.backing = ADAMW_PLACE_DEVICE;
  refused("backing = 4", o);
  o = file_options();
  o.device = 0;
  refused("device = 0: must be -1 for the backings HOST and FILE: steps on a CUDA device take PINNED or MANAGED", o);
  o.device = -2;
  refused("device = -2", o);
  o = file_options();
  o.backing = ADAMW_PLACE_PINNED;
  refused("device = -1: must be a CUDA device number for the backings PINNED and MANAGED: the CPU takes HOST or FILE",
          o);
  refused("resident_bytes = -1", with(&adamw_pager_options::resident_bytes, -1));
  refused("resident_bytes = 1000", with(&adamw_pager_options::resident_bytes, 1000));
  refused("chunk_bytes = 1000", with(&adamw_pager_options::chunk_bytes, 1000));
  refused("reserve_bytes = -5", with(&adamw_pager_options::reserve_bytes, -5));
  o = ADAMW_PAGER_OPTIONS_INIT;
  o.directory = "/tmp";
  refused("directory = '/tmp': must be NULL except for the backing FILE", o);
  o = ADAMW_PAGER_OPTIONS_INIT;
  o.reserve_bytes = 1;
  refused("reserve_bytes = 1: must be 0 except for the backing FILE", o);
  CHECK(adamw_pager_create(nullptr, &pager) == ADAMW_ERROR_INVALID_ARGUMENT && says("options is NULL"), "no options");
  CHECK(adamw_pager_create(&o, nullptr) == ADAMW_ERROR_INVALID_ARGUMENT && says("pager is NULL"), "nowhere to write");

  pager = new_pager(file_options());
  void *buffer = &pager;
  for (std::int64_t bytes : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 61})
    CHECK(adamw_pager_alloc(pager, bytes, &buffer, nullptr) == ADAMW_ERROR_INVALID_ARGUMENT && buffer == nullptr,
          "%lld bytes", static_cast<long long>(bytes));
  CHECK(adamw_pager_alloc(pager, 1, nullptr, nullptr) == ADAMW_ERROR_INVALID_ARGUMENT, "nowhere to write");
  CHECK(adamw_pager_alloc(nullptr, 1, &buffer, nullptr) == ADAMW_ERROR_INVALID_ARGUMENT && says("pager is NULL"),
        "no pager");
  adamw_pager_statistics statistics;
  CHECK(adamw_pager_stats(pager, &statistics, 8) == ADAMW_ERROR_VERSION, "a pointer's size");
  CHECK(adamw_pager_stats(pager, nullptr, sizeof statistics) == ADAMW_ERROR_INVALID_ARGUMENT, "nowhere to write");
  {
    // A row that passes the end of its buffer: nothing is written.
    PagedModel paged(pager, step_options(ADAMW_STATE_BLOCK8), {{1, 5000, 0}});
    const std::vector<std::uint8_t> before = paged.paged_contents();
    paged.rows[0].exp_avg_sq = static_cast<char *>(paged.rows[0].exp_avg_sq) + 1;
    std::int64_t rows = 7;
    paged.options.rows_stepped = &rows;
    CHECK(paged.call(1) == ADAMW_ERROR_INVALID_ARGUMENT && says("tensor 0: exp_avg_sq") && says("pass the end"), "%s",
          adamw_last_error());
    paged.rows[0].exp_avg_sq = static_cast<char *>(paged.rows[0].exp_avg_sq) - 1;
    CHECK(paged.paged_contents() == before && rows == 0, "something was written");
    // A tensor of which one segment is larger than a window cannot be measured in pieces.
    PagedModel large(pager, step_options(ADAMW_STATE_TENSOR8), {{1, 256 * 16 * 20, 0}});
    CHECK(large.call(1) == ADAMW_OK, "%s", adamw_last_error());
  }
  adamw_pager_destroy(pager);
}

}  // namespace

int main() {
  adamw::file_calls = {read_or_fail, write_or_fail, reserve_or_fail};
  check_all_failing();
  check_no_room();
  check_forks();
  check_directories();
  check_refusals();
  return finish();
}
