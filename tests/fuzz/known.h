// Owns what is not promised, and would be found: as long as a constant is true, it is left out.
#pragma once

namespace known {

// After a fork, what the program writes into a buffer of a FILE pager is lost if another thread makes the first call
// with that pager meanwhile. The stress then has no buffers that it writes in pagers that several threads use.
constexpr bool writes_beside_a_call_are_lost = true;

}  // namespace known
