// Owns a step over pages, see paged_step.h.
#include "paged_step.h"

#include <algorithm>
#include <cinttypes>

#include "numerics/sums.h"
#include "status.h"

namespace adamw {
namespace {

// Cuts at multiples of so many blocks of flat state begin a page in every buffer: 256 KiB of codes, 4 KiB of scales.
constexpr std::int64_t page_blocks = 1024;

void *moved(void *usable, std::int64_t back) {
  return reinterpret_cast<void *>(reinterpret_cast<std::uintptr_t>(usable) - static_cast<std::uintptr_t>(back));
}

}  // namespace

PagedRows::PagedRows(const char *function, const StepPlan &plan, Pager::Session &session)
    : function_(function), plan_(plan), session_(session) {
  const StepKind &kind = plan.kind;
  const FormatTraits format = traits(kind.state_format);
  for_each_moment(
      kind.amsgrad,
      [&](const char *name, void *adamw_tensor::*field) {
        fields_[field_count_++] = {name, field, nullptr, format.bytes};
      },
      moment_names, moment_fields);
  if (kind.remainder_bits != 0)
    fields_[field_count_++] = {"param_remainder", &adamw_tensor::param_remainder, nullptr, kind.remainder_bytes()};
  if (format.scaling != Scaling::block) return;  // the single scale of a tensor is used where it lies
  for_each_scale(kind.amsgrad, [&](const char *name, ScaleField field) {
    fields_[field_count_++] = {name, nullptr, field, sizeof(float)};
  });
}

// The end of a part that begins at block `first` and may have so many blocks (at least one): where a segment ends if
// rows are measured, else whole rows or a part of one, else whole pages, if there are any.
std::int64_t PagedRows::end_of_cut(const Row &row, std::int64_t first, std::int64_t blocks, bool measured) const {
  const std::int64_t end = first + blocks, per_row = row.blocks.blocks_per_row;
  if (measured) {
    const Segments segments = segments_of(row.blocks.count);
    std::int64_t low = 0, high = segments.count;  // the last segment that begins at or before `end`
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      (segments.begin(middle) <= end ? low : high) = middle;
    }
    return segments.begin(low);
  }
  if (per_row > 0) {
    const std::int64_t row_end = end / per_row * per_row;
    return first % per_row == 0 && row_end > first ? row_end : std::min(end, (first / per_row + 1) * per_row);
  }
  const std::int64_t page_end = end / page_blocks * page_blocks;
  return page_end > first ? page_end : end;
}

adamw_status PagedRows::cut(bool measured) {
  std::int64_t room = session_.chunk_bytes();
  buffers_.reserve(static_cast<std::size_t>(plan_.count * field_count_));
  for (std::int64_t i = 0; i < plan_.count; ++i) {
    const Row &row = plan_.rows[i];
    std::int64_t whole = 0;  // 0: it lies where it is used
    for (const Field *f = fields_; f < fields_ + field_count_; ++f) {
      const Buffer *buffer = nullptr;
      const std::int64_t bytes = f->bytes(row, 0, row.blocks.count);
      if (adamw_status s = session_.find(f->in(row.tensor), bytes, {row.number, f->name}, &buffer)) return s;
      buffers_.push_back(buffer);
      if (buffer == nullptr) continue;
      whole += cost_of(bytes, f->unit);
    }
    // Of blocks [first, last). The smallest window has room for those of one block.
    const Buffer *const *const buffers = buffers_.data() + buffers_.size() - static_cast<std::size_t>(field_count_);
    const auto cost = [&](std::int64_t first, std::int64_t last) {
      if (last - first == row.blocks.count) return whole;
      std::int64_t sum = 0;
      for (int f = 0; f < field_count_; ++f) {
        if (buffers[f] != nullptr) sum += cost_of(fields_[f].bytes(row, first, last), fields_[f].unit);
      }
      return sum;
    };
    for (std::int64_t first = 0; first < row.blocks.count;) {
      const std::int64_t per_row = row.blocks.blocks_per_row;
      // What begins within a row lies in it, even where all that is left has room.
      std::int64_t last =
          measured || per_row == 0 || first % per_row == 0 ? row.blocks.count : (first / per_row + 1) * per_row;
      const std::int64_t rest = last - first;
      if (whole > 0 && cost(first, last) > room) {
        std::int64_t fit = 0, more = rest;  // so many blocks have room, and so many have not
        while (more - fit > 1) {
          const std::int64_t middle = fit + (more - fit) / 2;
          (cost(first, first + middle) <= room ? fit : more) = middle;
        }
        last = fit > 0 ? end_of_cut(row, first, fit, measured) : first;
        if (last <= first) {  // not a part of it: the next window, which is empty
          if (room == session_.chunk_bytes()) {
            return fail(ADAMW_ERROR_UNSUPPORTED,
                        "%s: tensor %" PRId64 ": chunk_bytes = %" PRId64
                        " of the pager is too small for max_unorm or ADAMW_STATE_TENSOR8 with a tensor of this "
                        "size: 131072 bytes plus 1 / 4096 of its state are enough",
                        function_, row.number, session_.chunk_bytes());
          }
          ends_.push_back(spans_.size());
          room = session_.chunk_bytes();
          continue;
        }
      }
      spans_.push_back({i, first, last});
      if (whole > 0) room -= cost(first, last);
      if (last < row.blocks.count) {
        ends_.push_back(spans_.size());
        room = session_.chunk_bytes();
      }
      first = last;
    }
  }
  if (ends_.empty() || ends_.back() != spans_.size()) ends_.push_back(spans_.size());
  reserve();
  return ADAMW_OK;
}

// From the first write on nothing can fail for want of memory.
void PagedRows::reserve() {
  std::size_t most = 0;
  for (std::size_t k = 0; k < ends_.size(); ++k) most = std::max(most, ends_[k] - begin_of(k));
  const std::size_t pieces = most * static_cast<std::size_t>(field_count_);
  for (Window &window : windows_) {
    window.loan.pieces.reserve(pieces);
    window.rows.reserve(most);
    window.parts.reserve(most);
  }
  session_.reserve(pieces);
}

// Starts to bring in what window k needs.
adamw_status PagedRows::bring(std::size_t k, Window *window) {
  window->loan.pieces.clear();
  for (std::size_t i = begin_of(k); i < ends_[k]; ++i) {
    const Span &span = spans_[i];
    const Row &row = plan_.rows[span.row];
    for (int f = 0; f < field_count_; ++f) {
      const Field &field = fields_[f];
      const Buffer *buffer = buffer_of(span.row, f);
      if (buffer == nullptr) continue;
      char *home = static_cast<char *>(field.in(row.tensor)) + field.offset(row, span.first);
      window->loan.pieces.push_back({buffer, home, field.bytes(row, span.first, span.last), home});
    }
  }
  return session_.fetch(window->loan);
}

// The rows of window k, with pointers to where its state is now. A row's pointers are such that blocks keep their
// numbers.
void PagedRows::point(std::size_t k, Window *window) const {
  window->rows.clear();  // parts point into it: it has the room for all
  window->parts.clear();
  std::size_t next = 0;
  for (std::size_t i = begin_of(k); i < ends_[k]; ++i) {
    const Span &span = spans_[i];
    window->rows.push_back(plan_.rows[span.row]);
    Row &row = window->rows.back();
    for (int f = 0; f < field_count_; ++f) {
      if (buffer_of(span.row, f) == nullptr) continue;  // it does not move
      const Field &field = fields_[f];
      void *pointer = moved(window->loan.pieces[next++].usable, field.offset(row, span.first));
      if (field.elements != nullptr) {
        row.tensor.*field.elements = pointer;
      } else {
        row.tensor.*field.scales = static_cast<float *>(pointer);
      }
    }
    window->parts.push_back({&row, span.row, span.first, span.last});
  }
}

void PagedRows::note_done(std::size_t k) {
  const Span &span = spans_[ends_[k] - 1];
  const Row &row = plan_.rows[span.row];
  const bool whole = span.last == row.blocks.count;
  rows_done_ = span.row + (whole ? 1 : 0);
  elements_done_ = whole ? 0 : element(row, span.last);
  *plan_.rows_done = rows_done_;
}

adamw_status PagedRows::sweep(bool written, const Body &body) {
  std::size_t brought = 0;
  for (std::size_t k = 0; k < ends_.size(); ++k) {
    for (; brought < ends_.size() && brought - k < page_windows - 1; ++brought) {
      if (adamw_status s = bring(brought, &windows_[brought % page_windows])) return s;
    }
    Window &window = windows_[k % page_windows];
    if (adamw_status s = session_.arrive(window.loan)) return s;
    point(k, &window);
    if (adamw_status s = body(window.parts.data(), static_cast<std::int64_t>(window.parts.size()))) return s;
    const adamw_status given_back = session_.give_back(window.loan, written);
    if (written) note_done(k);  // what could not be written is kept in memory
    if (given_back != ADAMW_OK) return given_back;
  }
  return ADAMW_OK;
}

}  // namespace adamw
