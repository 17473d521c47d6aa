// Owns a step over pages: cuts the rows of a call into windows of state, and has a backend step one while the next come
// in and the last go back. Knows where blocks lie and what state is made of; knows no arithmetic on it and no way of
// moving it.
#pragma once

#include "backend.h"
#include "pager/pager.h"

namespace adamw {

class PagedRows final : public Windows {
 public:
  // `plan` is read when a sweep needs it: a pass over gradients may change its coefficients first.
  PagedRows(const char *function, const StepPlan &plan, Pager::Session &session);

  // Cuts, and has all the memory that the sweeps need. `measured`: a backend takes sums over whole segments of rows
  // first.
  adamw_status cut(bool measured);

  adamw_status sweep(bool written, const Body &body) override;

  // How far the sweep that writes has come: rows of the plan, and elements of the next one.
  std::int64_t rows_done() const { return rows_done_; }
  std::int64_t elements_done() const { return elements_done_; }

 private:
  static constexpr int max_elements = 4, max_scales = 5, max_fields = max_elements + max_scales;
  static_assert(max_elements * cost_of(block_size * 4, 1) + max_scales * cost_of(4, 4) <= smallest_chunk,
                "a block has room in every window");

  // Blocks of one row.
  struct Span {
    std::int64_t row, first, last;
  };
  // A buffer of state that every row has.
  struct Field {
    const char *name;
    void *adamw_tensor::*elements;
    float *adamw_tensor::*scales;  // one of the two
    std::int64_t unit;             // bytes of an element, or of a block

    void *in(const adamw_tensor &tensor) const {
      return elements != nullptr ? tensor.*elements : static_cast<void *>(tensor.*scales);
    }
    // Where block `first`'s part begins, and how long those up to `last` are.
    std::int64_t offset(const Row &row, std::int64_t first) const {
      return (elements != nullptr ? element(row, first) : first) * unit;
    }
    std::int64_t bytes(const Row &row, std::int64_t first, std::int64_t last) const {
      return offset(row, last) - offset(row, first);
    }
  };
  struct Window {
    Loan loan;
    std::vector<Row> rows;
    std::vector<Part> parts;
  };

  static std::int64_t element(const Row &row, std::int64_t block) {
    return block == row.blocks.count ? row.tensor.numel : row.blocks.place(block).begin;
  }
  const Buffer *buffer_of(std::int64_t row, int field) const {
    return buffers_[static_cast<std::size_t>(row * field_count_ + field)];
  }
  std::int64_t end_of_cut(const Row &row, std::int64_t first, std::int64_t blocks, bool measured) const;
  void reserve();
  adamw_status bring(std::size_t k, Window *window);
  std::size_t begin_of(std::size_t k) const { return k == 0 ? 0 : ends_[k - 1]; }
  void point(std::size_t k, Window *window) const;
  void note_done(std::size_t k);

  const char *const function_;
  const StepPlan &plan_;
  Pager::Session &session_;
  Field fields_[max_fields];
  int field_count_ = 0;
  std::vector<const Buffer *> buffers_;  // of each row's fields; null where that is used where it lies
  std::vector<Span> spans_;
  std::vector<std::size_t> ends_;  // of each window, in spans_
  Window windows_[page_windows];   // taken in turn
  std::int64_t rows_done_ = 0, elements_done_ = 0;
};

}  // namespace adamw
