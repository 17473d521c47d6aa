// Owns the text behind a status. Knows nothing of what failed.
#pragma once

#include "../include/adamw.h"
#include "platform.h"

namespace adamw {

constexpr int max_error = 768;  // with the zero at its end

// Keeps the formatted sentence for adamw_last_error() on this thread and returns `status`.
ADAMW_PRINTF(2, 3) adamw_status fail(adamw_status status, const char *format, ...);

void clear_error();

}  // namespace adamw
