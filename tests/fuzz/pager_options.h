// Owns with what pagers are made, right and wrong, and the calls that come without one.
#pragma once

#include <functional>

#include "choices.h"
#include "verdict.h"

// What is wrong with them beyond what they say themselves: a directory that is not there.
Statuses choose_pager_options(Choices &choices, adamw_pager_options &options);

void call_without_pager(const std::function<void(const char *name, adamw_status, Statuses errors)> &judge);
