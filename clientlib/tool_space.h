// `bidstore space`: where the space of the data file is.
#pragma once

#include "clientlib/tool_options.h"

namespace bidstore {

int show_space(const ToolOptions& options);

}  // namespace bidstore
