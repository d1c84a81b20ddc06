// The store's front: attaching, the catalog, statistics.

#include "clientlib/bidstore.h"

#include <cstring>

#include "clientlib/catalog_row.h"
#include "clientlib/session.h"
#include "clientlib/snapshot.h"
#include "engine/page/catalog_schema.h"
#include "shm/stats.h"

namespace bidstore {
namespace {

// A row of the catalog as a table of this store.
Result<RawTable> table_of(StoreState& store, const Copy<CatalogRow>& row) {
    Result<Schema> schema = Schema::decode(std::as_bytes(std::span(row.schema)));
    if (!schema.ok()) {
        return {Error::kCorruption, "catalog: the schema of table " + std::string(row.name) +
                                        " cannot be read: " + schema.failure().what};
    }
    const bool system = (row.flags & kSystemTableFlag) != 0;
    return RawTable(store.table_info(TableId{row.table_id}, system, std::move(*schema)),
                    row.retain_us);
}

// All tables of the catalog, or the one with that name.
Result<std::vector<RawTable>> catalog_tables(StoreState& store, const Snapshot& snapshot,
                                             std::string_view name) {
    // The handle lives as long as the process: it shares the catalog's constant description.
    const RawTable catalog{std::shared_ptr<const TableInfo>(&catalog_info(), [](auto*) {})};
    std::vector<RawTable> tables;
    Cursor<CatalogRow> cursor(catalog.scan(snapshot, {}, {}));
    while (cursor.next()) {
        Result<Copy<CatalogRow>> row = cursor.copy();
        if (!row.ok()) return row.failure();
        if ((row->flags & (kDroppedTableFlag | kHiddenTableFlag)) != 0) continue;
        if (!name.empty() && row->name != name) continue;
        Result<RawTable> table = table_of(store, *row);
        if (!table.ok()) return table.failure();
        tables.push_back(std::move(*table));
    }
    if (Status whole = cursor.status(); !whole.ok()) return whole.failure();
    return tables;
}

}  // namespace

const TableInfo& catalog_info() {
    static const TableInfo info{
        kCatalogTable, 0, {}, true, catalog_schema(),
        std::make_shared<const TreeShape>(catalog_schema(), kCatalogTable)};
    return info;
}

Store::Store(std::shared_ptr<StoreState> state) : state_(std::move(state)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Result<Store> Store::attach(const AttachOptions& options, Deadline deadline) {
    auto connection =
        connect_to_daemon(options, SessionBytes{}, options.wait_for_daemon, deadline);
    if (!connection.ok()) return connection.failure();
    return Store(std::make_shared<StoreState>(options, std::move(*connection)));
}

Result<Reader> StoreState::make_reader(std::shared_ptr<StoreState> itself) {
    if (forked()) return forked_failure();
    std::shared_ptr<Connection> connection;
    {
        const std::lock_guard hold(lock_);
        connection = connection_;
    }
    auto state = std::make_unique<ReaderState>(std::move(itself));
    if (Status moved = state->move_to(std::move(connection)); !moved.ok()) return moved.failure();
    return Reader(std::move(state));
}

Result<Reader> Store::reader() { return state_->make_reader(state_); }

Result<RawTable> Store::open_raw(std::string_view name, Deadline deadline) {
    auto found = state_->with_catalog(deadline, [&](const Snapshot& snapshot) {
        return catalog_tables(*state_, snapshot, name);
    });
    if (!found.ok()) return found.failure();
    if (!name.empty() && !found->empty()) return std::move(found->front());
    return {Error::kNoSuchTable,
            "there is no table \"" + std::string(name) + "\": make it with create_table"};
}

Result<RawTable> Store::open_checked(const Schema& expected, Deadline deadline) {
    Result<RawTable> table = open_raw(expected.name(), deadline);
    if (!table.ok()) return table;
    const std::string difference = table->schema().difference(expected);
    if (difference.empty()) return table;
    return {Error::kSchemaMismatch, "table " + expected.name() + ": " + difference};
}

Result<std::vector<RawTable>> Store::tables(Deadline deadline, bool with_system) {
    auto found = state_->with_catalog(deadline, [&](const Snapshot& snapshot) {
        return catalog_tables(*state_, snapshot, {});
    });
    if (!found.ok()) return found;
    if (!with_system) std::erase_if(*found, [](const auto& table) { return table.info().system; });
    return found;
}

Status Store::create_table(const Schema& schema, Deadline deadline,
                           const TableAttributes& attributes) {
    RawTransaction transaction;
    transaction.create_table(schema, attributes);
    Result<Committed> made = commit(transaction, deadline);
    if (made.ok()) return {};
    return {made.error(), "table " + schema.name() + ": " + made.failure().what};
}

Status Store::set_table(std::string_view name, const TableAttributes& attributes,
                        Deadline deadline) {
    Result<RawTable> table = open_raw(name, deadline);
    if (!table.ok()) return table.failure();
    RawTransaction transaction;
    transaction.set_table(table->id(), attributes);
    Result<Committed> set = commit(transaction, deadline);
    if (set.ok()) return {};
    return {set.error(), "table " + std::string(name) + ": " + set.failure().what};
}

Status Store::drop_table(std::string_view name, Deadline deadline) {
    Result<RawTable> table = open_raw(name, deadline);
    if (!table.ok()) return table.failure();
    RawTransaction transaction;
    transaction.drop_table(table->id());
    Result<Committed> dropped = commit(transaction, deadline);
    if (dropped.ok()) return {};
    return dropped.failure();
}

Result<Committed> Store::commit(const RawTransaction& transaction, Deadline deadline,
                                Durability durability) {
    auto write = state_->submit(transaction, durability, deadline);
    if (!write.ok()) return write.failure();
    return Pending(state_, std::move(*write)).wait(deadline);
}

Result<Pending> Store::submit(const RawTransaction& transaction, Deadline deadline,
                              Durability durability) {
    auto write = state_->submit(transaction, durability, deadline);
    if (!write.ok()) return write.failure();
    return Pending(state_, std::move(*write));
}

Result<Stats> Store::stats(Deadline deadline) {
    if (state_->forked()) return forked_failure();
    auto connection = state_->live_connection(deadline);
    if (!connection.ok()) return connection.failure();
    if ((*connection)->hung_up()) {
        (*connection)->abandon();
        connection = state_->live_connection(deadline);
        if (!connection.ok()) return connection.failure();
    }
    const PoolView& pool = (*connection)->pool();
    const StatsPage& page = pool.stats();
    Stats stats;
    stats.counter_count = std::min(page.counter_count, kCounterCount);
    stats.histogram_count = std::min(page.histogram_count, kHistogramCount);
    for (std::size_t i = 0; i < kCounterCount; ++i) stats.counter[i] = page.counter[i].load();
    for (std::size_t i = 0; i < kHistogramCount; ++i) {
        stats.histogram[i].count = page.histogram[i].count.load();
        stats.histogram[i].sum = page.histogram[i].sum.load();
        for (std::size_t j = 0; j < kHistogramBuckets; ++j) {
            stats.histogram[i].bucket[j] = page.histogram[i].bucket[j].load();
        }
    }
    stats.instance_id = pool.header().instance_id;
    stats.visible_csn = pool.published().visible.load();
    const std::uint64_t now_ns = to_ns(std::chrono::steady_clock::now());
    const std::uint64_t heartbeat_ns = pool.header().engine.heartbeat_ns.load();
    stats.heartbeat_age_ns = now_ns > heartbeat_ns ? now_ns - heartbeat_ns : 0;
    stats.mode = pool.header().engine.mode.load();
    return stats;
}

std::array<std::uint8_t, 16> Store::session_id() const { return state_->session(); }
std::uint64_t Store::reconnects() const { return state_->reconnects(); }

}  // namespace bidstore
