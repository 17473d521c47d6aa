// Owns the list of the codings that formats.h has rows of. Knows nothing of them.
#pragma once

#include "root_codes.h"
