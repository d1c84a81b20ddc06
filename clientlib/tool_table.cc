#include "clientlib/tool_table.h"

#include <cstdio>
#include <utility>

#include "clientlib/import_mapping.h"
#include "clientlib/import_schema.h"
#include "clientlib/tool_output.h"

namespace bidstore {
namespace {

struct WantedTable {
    Schema schema;
    std::string retain;
};

Result<std::vector<WantedTable>> schemas_of_file(const TableCreate& create) {
    auto mapping = load_mapping(create.schema_file);
    if (!mapping) return mapping.failure();
    std::vector<WantedTable> schemas;
    for (const TableMapping& table : mapping->tables) {
        if (!create.name.empty() && table.name != create.name) continue;
        auto schema = mapping_schema(table);
        if (!schema) {
            return {Error::kInvalid, create.schema_file + ": " + schema.failure().what};
        }
        schemas.push_back({std::move(*schema),
                           create.retain.empty() ? table.retain : create.retain});
    }
    if (schemas.empty()) {
        return {Error::kInvalid, create.schema_file + " has no table " + create.name};
    }
    return schemas;
}

Result<std::vector<WantedTable>> wanted_schemas(const TableCreate& create) {
    if (!create.schema_file.empty()) return schemas_of_file(create);
    TableText text{create.name, {}, split_names(create.key), create.time, create.time_unit};
    for (const std::string& column : create.columns) {
        auto parsed = parse_column(column);
        if (!parsed) return parsed.failure();
        text.columns.push_back(*parsed);
    }
    auto schema = make_schema(text);
    if (!schema) return schema.failure();
    return std::vector<WantedTable>{{std::move(*schema), create.retain}};
}

std::string key_text(const Schema& schema) {
    std::string text;
    for (std::uint32_t i = 0; i < schema.key_columns(); ++i) {
        text.append(i == 0 ? "" : ",").append(schema.columns()[i].name);
    }
    return text;
}

std::string time_name(const Schema& schema) {
    return schema.time_column() == kNoTimeColumn ? "" : schema.columns()[schema.time_column()].name;
}

std::string table_json(const RawTable& table) {
    const Schema& schema = table.schema();
    std::string columns;
    for (const Column& column : schema.columns()) {
        JsonLine line;
        line.text("name", column.name).text("type", type_text(column));
        columns.append(columns.empty() ? "" : ",").append(line.str());
    }
    std::string key;
    for (std::uint32_t i = 0; i < schema.key_columns(); ++i) {
        key.append(i == 0 ? "" : ",").append(json_string(schema.columns()[i].name));
    }
    JsonLine line;
    line.text("name", schema.name()).number("id", table.id().value);
    line.raw("columns", "[" + columns + "]").raw("key", "[" + key + "]");
    if (!time_name(schema).empty()) {
        line.text("time", time_name(schema));
        line.text("time_unit", schema.time_unit() == TimeUnit::kMicroseconds ? "us" : "ns");
        line.number("retain_us", table.retain_us());
    }
    return line.str();
}

void print_table(const RawTable& table) {
    const Schema& schema = table.schema();
    std::printf("table %s, id %u, key of %u bytes\n", schema.name().c_str(), table.id().value,
                schema.key_bytes());
    TextTable text({"column", "type", ""});
    for (std::uint32_t i = 0; i < schema.columns().size(); ++i) {
        std::string role = i < schema.key_columns() ? "key" : "";
        if (i == schema.time_column()) {
            role += std::string(role.empty() ? "" : ", ") + "time in " +
                    (schema.time_unit() == TimeUnit::kMicroseconds ? "us" : "ns");
        }
        text.add({schema.columns()[i].name, type_text(schema.columns()[i]), role});
    }
    std::fputs(text.str(true).c_str(), stdout);
    if (table.retain_us() == 0) return;
    std::printf("rows live for %s\n", retention_text(table.retain_us()).c_str());
}

}  // namespace

Result<bool> ensure_table(Store& store, const Schema& schema, const std::string& retain,
                          bool if_missing, Deadline deadline) {
    auto retain_us = parse_retention(retain);
    if (!retain_us) return retain_us.failure();
    if (*retain_us != 0 && schema.time_column() == kNoTimeColumn) {
        return {Error::kInvalid, "table " + schema.name() +
                                     ": retention goes by a time column, and it has none"};
    }
    Status made = store.create_table(schema, deadline, {.retain_us = *retain_us, .reserved = 0});
    if (made.ok()) return true;
    if (made.error() != Error::kTableExists || !if_missing) return made.failure();
    auto table = store.open_raw(schema.name(), deadline);
    if (!table) return table.failure();
    const std::string difference = table->schema().difference(schema);
    if (difference.empty()) return false;
    return {Error::kSchemaMismatch, "table " + schema.name() + " is there and differs: " +
                                        difference};
}

int table_create(const ToolOptions& options, const TableCreate& create) {
    auto schemas = wanted_schemas(create);
    if (!schemas) return options.fail(schemas.failure());
    auto store = options.attach(Rights::kAdmin);
    if (!store) return options.fail(store.failure());
    for (const auto& [schema, retain] : *schemas) {
        auto made = ensure_table(*store, schema, retain, create.if_missing, options.deadline());
        if (!made) return options.fail(made.failure());
        auto table = store->open_raw(schema.name(), options.deadline());
        if (!table) return options.fail(table.failure());
        if (options.json) {
            std::printf("%s\n", table_json(*table).c_str());
        } else {
            std::printf("table %s %s, id %u\n", schema.name().c_str(),
                        *made ? "made" : "is there already", table->id().value);
        }
    }
    return kExitOk;
}

int table_list(const ToolOptions& options, bool with_system) {
    auto store = options.attach(Rights::kReader);
    if (!store) return options.fail(store.failure());
    auto tables = store->tables(options.deadline(), with_system);
    if (!tables) return options.fail(tables.failure());
    TextTable text({">id", "table", ">columns", "key", "time", "rows live"});
    for (const RawTable& table : *tables) {
        if (options.json) {
            std::printf("%s\n", table_json(table).c_str());
        }
        const Schema& schema = table.schema();
        text.add({std::to_string(table.id().value), schema.name(),
                  std::to_string(schema.columns().size()), key_text(schema), time_name(schema),
                  table.retain_us() == 0 ? "" : retention_text(table.retain_us())});
    }
    if (options.json) return kExitOk;
    if (text.empty()) {
        std::printf("no tables\n");
    } else {
        std::fputs(text.str(true).c_str(), stdout);
    }
    return kExitOk;
}

int table_show(const ToolOptions& options, const std::string& name) {
    auto store = options.attach(Rights::kReader);
    if (!store) return options.fail(store.failure());
    auto table = store->open_raw(name, options.deadline());
    if (!table) return options.fail(table.failure());
    if (options.json) {
        std::printf("%s\n", table_json(*table).c_str());
    } else {
        print_table(*table);
    }
    return kExitOk;
}

int table_set(const ToolOptions& options, const std::string& name, const std::string& retain) {
    auto retain_us = parse_retention(retain);
    if (!retain_us) return options.fail(retain_us.failure());
    auto store = options.attach(Rights::kAdmin);
    if (!store) return options.fail(store.failure());
    auto table = store->open_raw(name, options.deadline());
    if (!table) return options.fail(table.failure());
    if (*retain_us != 0 && table->schema().time_column() == kNoTimeColumn) {
        return options.fail({Error::kInvalid, "table " + name + ": retention goes by a time "
                                              "column, and it has none"});
    }
    Status set = store->set_table(name, {.retain_us = *retain_us, .reserved = 0},
                                  options.deadline());
    if (!set) return options.fail(set.failure());
    if (!options.json) {
        std::printf("table %s: %s\n", name.c_str(),
                    *retain_us == 0 ? "rows live for ever"
                                    : ("rows live for " + retention_text(*retain_us)).c_str());
    }
    return kExitOk;
}

int table_drop(const ToolOptions& options, const std::string& name) {
    auto store = options.attach(Rights::kAdmin);
    if (!store) return options.fail(store.failure());
    Status dropped = store->drop_table(name, options.deadline());
    if (!dropped) return options.fail(dropped.failure());
    if (!options.json) std::printf("table %s dropped\n", name.c_str());
    return kExitOk;
}

}  // namespace bidstore
