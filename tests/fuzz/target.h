// Owns one input of the fuzzer: bytes that become one call, or the life of one pager. The same bytes are the same
// calls.
#pragma once

#include <cstddef>
#include <cstdint>

void run_input(const std::uint8_t *data, std::size_t size);
