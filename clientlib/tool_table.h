// `bidstore table create | list | show | set | drop`.
#pragma once

#include <string>
#include <vector>

#include "clientlib/tool_options.h"

namespace bidstore {

struct TableCreate {
    std::string name;  // empty with a schema file: all of its tables
    std::vector<std::string> columns;  // "name:type"
    std::string key;                   // "a,b"
    std::string time;
    std::string time_unit;
    std::string retain;       // "72h"; empty or "off": for ever
    std::string schema_file;  // instead of the five above
    bool if_missing = false;  // a table that is there and fits is fine
};

int table_create(const ToolOptions& options, const TableCreate& create);
int table_list(const ToolOptions& options, bool with_system);
int table_show(const ToolOptions& options, const std::string& name);
int table_set(const ToolOptions& options, const std::string& name, const std::string& retain);
int table_drop(const ToolOptions& options, const std::string& name);

// Makes the table, or (if_missing) checks that the one that is there fits. True: it was made.
// `retain` as the command line or a mapping has it.
Result<bool> ensure_table(Store& store, const Schema& schema, const std::string& retain,
                          bool if_missing, Deadline deadline);

}  // namespace bidstore
