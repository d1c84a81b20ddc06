// Rows and keys of described structs as bytes, and back; and the checks of a description.
//
// What is here follows from Describe<T> alone, at compile time; the layout is that of
// engine/page/schema.h, which the same description is turned into for the catalog.
//
// Who:    everything works on its arguments alone; any thread.
// Trust:  bytes may lie in a page that is being reused: they are loaded once, by racy_copy, and
//         lengths are clamped to the value's. What came out is believed after Snapshot::valid().
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "clientlib/describe.h"
#include "engine/page/page.h"
#include "engine/page/row.h"
#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

// ---- one column as bytes ------------------------------------------------------------------------

// A column's stored form: little-endian in values, order-preserving in keys.
template <class Column, bool InKey>
struct Stored {
    using M = typename Column::type;
    static constexpr std::uint32_t kWidth = Column::kWidth;

    static constexpr bool kTurned = InKey && kIsInteger<M>;

    static void store(std::byte* to, const M& value) {
        if constexpr (kTurned) {
            encode_integer(to, value);
        } else {
            std::memcpy(to, &value, kWidth);
        }
    }
    // `from` may lie in a page that is being reused: see racy_copy.
    static M load(const std::byte* from) {
        if constexpr (kTurned) {
            return decode_integer(from);
        } else {
            M value;
            racy_copy(&value, from, kWidth);
            return value;
        }
    }

  private:
    // The width comes from the type, so the compiler makes one byte swap of each loop.
    static void encode_integer(std::byte* to, M value) {
        using I = decltype(integer_of<M>());
        using U = std::make_unsigned_t<I>;
        auto bits = static_cast<std::uint64_t>(static_cast<U>(static_cast<I>(value)));
        if constexpr (std::is_signed_v<I>) bits ^= std::uint64_t{1} << (8 * sizeof(I) - 1);
        for (std::size_t i = 0; i < sizeof(I); ++i) {
            to[i] = static_cast<std::byte>(bits >> (8 * (sizeof(I) - 1 - i)));
        }
    }
    static M decode_integer(const std::byte* from) {
        using I = decltype(integer_of<M>());
        std::array<std::byte, sizeof(I)> copy;
        racy_copy(copy.data(), from, sizeof(I));
        std::uint64_t bits = 0;
        for (std::byte byte : copy) bits = bits << 8 | static_cast<std::uint64_t>(byte);
        if constexpr (std::is_signed_v<I>) bits ^= std::uint64_t{1} << (8 * sizeof(I) - 1);
        return static_cast<M>(static_cast<I>(bits));
    }
};
static_assert(std::endian::native == std::endian::little);

template <std::size_t N>
struct ColumnBytes {
    std::array<std::byte, N> data;
    std::span<const std::byte> span() const { return data; }
};
struct ColumnView {
    std::string_view view;
    std::span<const std::byte> span() const { return std::as_bytes(std::span(view)); }
};

// ---- the whole table, checked -------------------------------------------------------------------

// A row whose variable-length columns are its own: a T, and the storage that its std::string_views
// look at. Moves keep them right; copies are not to be had, so that none can dangle.
template <class T>
struct Owned : T {
    Owned() = default;
    Owned(Owned&&) noexcept = default;
    Owned& operator=(Owned&&) noexcept = default;

    // Room for that many bytes, used again when it is there already: what was moved from still has
    // its capacity, and no storage.
    char* reserve(std::size_t size_bytes) {
        if (!storage_ || size_bytes > capacity_bytes_) {
            storage_ = std::make_unique_for_overwrite<char[]>(size_bytes);
            capacity_bytes_ = size_bytes;
        }
        return storage_.get();
    }

  private:
    std::unique_ptr<char[]> storage_;
    std::size_t capacity_bytes_ = 0;
};

template <class T>
class Description {
  public:
    static constexpr const auto& table = Describe<T>::table;
    using Table = std::remove_cvref_t<decltype(table)>;
    using Columns = typename Table::columns_type;
    static constexpr std::size_t kKeyColumns = Table::kKeyColumns;
    static constexpr std::size_t kColumns = Table::kColumns;
    template <std::size_t I>
    using Column = std::tuple_element_t<I, Columns>;
    template <std::size_t I>
    using StoredColumn = Stored<Column<I>, (I < kKeyColumns)>;

  private:
    static constexpr auto kWidths = []<std::size_t... I>(std::index_sequence<I...>) {
        return std::array<std::uint32_t, kColumns>{Column<I>::kWidth...};
    }(std::make_index_sequence<kColumns>{});
    static constexpr auto kVariables = []<std::size_t... I>(std::index_sequence<I...>) {
        return std::array<bool, kColumns>{Column<I>::kVariable...};
    }(std::make_index_sequence<kColumns>{});
    static constexpr auto kTypes = []<std::size_t... I>(std::index_sequence<I...>) {
        return std::array<ColumnType, kColumns>{Column<I>::kType...};
    }(std::make_index_sequence<kColumns>{});
    static constexpr auto kNames = []<std::size_t... I>(std::index_sequence<I...>) {
        return std::array<std::string_view, kColumns>{std::get<I>(table.columns).name...};
    }(std::make_index_sequence<kColumns>{});

    // Of fixed columns: the offset in the key or in the value. Of variable ones: their number.
    static constexpr auto kOffsets = [] {
        std::array<std::uint32_t, kColumns> offsets{};
        std::uint32_t next = 0;
        std::uint32_t variable = 0;
        for (std::size_t i = 0; i < kColumns; ++i) {
            if (i == kKeyColumns) next = 0;
            offsets[i] = kVariables[i] ? variable++ : next;
            next += kWidths[i];
        }
        return offsets;
    }();
    static constexpr std::uint32_t sum_widths(std::size_t from, std::size_t to) {
        std::uint32_t sum = 0;
        for (std::size_t i = from; i < to; ++i) sum += kWidths[i];
        return sum;
    }
    static constexpr std::uint32_t count_variable(std::size_t from, std::size_t to) {
        std::uint32_t count = 0;
        for (std::size_t i = from; i < to; ++i) count += kVariables[i] ? 1 : 0;
        return count;
    }

  public:
    static constexpr std::uint32_t kKeyBytes = sum_widths(0, kKeyColumns);
    static constexpr std::uint32_t kFixedBytes = sum_widths(kKeyColumns, kColumns);
    static constexpr std::uint32_t kVariableColumns = count_variable(0, kColumns);
    static constexpr std::uint32_t kTextOffset = kFixedBytes + 2 * kVariableColumns;
    static constexpr std::uint32_t kWideTextOffset = kFixedBytes + 2 + 4 * kVariableColumns;
    // In its page, and in every form that fits one.
    static constexpr std::uint32_t kValueBytesMax = kVariableColumns ? kRowBytesMax : kFixedBytes;
    using CopyType = std::conditional_t<kVariableColumns == 0, T, Owned<T>>;

    // All that can be wrong with a description, each with its own message.
    static consteval bool checked() {
        static_assert(count_variable(0, kKeyColumns) == 0,
                      "bidstore: key columns have a fixed width; std::string_view cannot be one");
        static_assert(!has_float(0, kKeyColumns),
                      "bidstore: float and double cannot be key columns");
        static_assert(kKeyBytes <= kKeyBytesMax,
                      "bidstore: the key columns together are at most 64 bytes");
        static_assert(variable_last(), "bidstore: std::string_view columns come after all others");
        static_assert(kKeyBytes + kTextOffset <= kRowBytesMax,
                      "bidstore: the fixed columns of a row must fit a page (4,024 bytes)");
        static_assert(kColumns <= kColumnsMax, "bidstore: a table has at most 256 columns");
        static_assert(widths_fit(), "bidstore: Bytes<N> has 1 to 2,048 bytes");
        static_assert(same_class(std::make_index_sequence<kColumns>{}),
                      "bidstore: all columns are members of the struct that is described");
        static_assert(names_well_formed(),
                      "bidstore: names are [a-z][a-z0-9_]*, at most 64 bytes");
        static_assert(names_unique(), "bidstore: two columns have the same name");
        static_assert(members_unique(std::make_index_sequence<kColumns>{}),
                      "bidstore: a member is described twice");
        static_assert(time_is_timestamp(),
                      "bidstore: time_column(...) names a timestamp or std::uint64_t column");
        static_assert(std::is_default_constructible_v<T>,
                      "bidstore: a row struct must be default-constructible");
        static_assert(!std::is_final_v<T>, "bidstore: a row struct cannot be final");
        return true;
    }

    template <auto Member>
    static consteval std::uint16_t index() {
        constexpr std::size_t kIndex = find<Member>();
        static_assert(kIndex < kColumns, "bidstore: this member is not a column of the table");
        return static_cast<std::uint16_t>(kIndex);
    }
    template <auto Member>
    static consteval bool is_variable() {
        return Column<index<Member>()>::kVariable;
    }
    // Whether a row in its page only refers to one of its columns (engine/page/row.h).
    static bool refers([[maybe_unused]] std::span<const std::byte> value) {
        if constexpr (kVariableColumns == 0) {
            return false;
        } else {
            if (value.size() < kTextOffset || is_wide(value)) return false;
            std::uint16_t flags = 0;
            for (std::uint32_t i = 0; i < kVariableColumns; ++i) {
                flags = static_cast<std::uint16_t>(flags | load_narrow_end(value, i));
            }
            return (flags & kReferenceFlag) != 0;
        }
    }
    template <auto Member>
    static consteval bool is_counter() {
        return index<Member>() >= kKeyColumns && kIsInteger<MemberType<Member>> &&
               kTypes[index<Member>()] != ColumnType::kTimestamp;
    }

    // A column of a row. Clamped: garbage gives zero or a short view, never one outside `value`.
    template <auto Member>
    static MemberType<Member> member(std::span<const std::byte> key,
                                     std::span<const std::byte> value) {
        return load<index<Member>()>(key, value);
    }

    // The form in which a value column travels in a precondition or an update.
    template <auto Member>
    static auto value_bytes(const MemberType<Member>& value) {
        constexpr std::size_t kIndex = index<Member>();
        static_assert(kIndex >= kKeyColumns,
                      "bidstore: a key column cannot be updated or compared");
        if constexpr (Column<kIndex>::kVariable) {
            return ColumnView{value};
        } else {
            ColumnBytes<Column<kIndex>::kWidth> stored;
            StoredColumn<kIndex>::store(stored.data.data(), value);
            return stored;
        }
    }

    static CopyType copy(std::span<const std::byte> key, std::span<const std::byte> value) {
        CopyType row{};
        copy_into(row, key, value);
        return row;
    }
    static void copy_into(CopyType& row, std::span<const std::byte> key,
                          std::span<const std::byte> value) {
        if constexpr (kVariableColumns == 0) {
            load_all(row, key, value, std::make_index_sequence<kColumns>{});
        } else {
            // The whole value moves into the row's storage, ends and all: one copy, and the views
            // are cut from bytes that hold still.
            char* storage = row.reserve(value.size());
            if (!value.empty()) racy_copy(storage, value.data(), value.size());
            const auto kept = std::as_bytes(std::span(storage, value.size()));
            load_all(row, key, kept, std::make_index_sequence<kColumns>{});
        }
    }

    template <std::size_t... I>
    static void store_key(std::byte* to, const T& row, std::index_sequence<I...>) {
        (StoredColumn<I>::store(to + kOffsets[I], row.*Column<I>::kMember), ...);
    }
    template <std::size_t I, class Part>
    static void store_key_part(std::byte* to, const Part& part) {
        using M = typename Column<I>::type;
        static_assert(std::is_convertible_v<const Part&, M>,
                      "bidstore: a key part does not have its column's type");
        StoredColumn<I>::store(to + kOffsets[I], static_cast<M>(part));
    }
    static constexpr std::uint32_t key_bytes_of(std::size_t parts) { return sum_widths(0, parts); }

    // The whole value's size (engine/page/row.h), or ~0 when a column is larger than it may be, or
    // the row cannot be stored.
    static std::uint32_t value_size(const T& row) {
        std::uint64_t text = 0;
        std::uint64_t least = kKeyBytes + kTextOffset;  // with a reference for every large column
        bool fits = true;
        for_each_variable(row, [&](std::string_view view) {
            text += view.size();
            least += view.size() < kReferenceBytesMax ? view.size() : kReferenceBytesMax;
            fits = fits && view.size() <= kLargeValueBytesMax;
        });
        if (!fits || least > kRowBytesMax) return ~std::uint32_t{0};
        const bool narrow = kKeyBytes + kTextOffset + text <= kRowBytesMax;
        return static_cast<std::uint32_t>(text + (narrow ? kTextOffset : kWideTextOffset));
    }
    // `to` has room for value_size(row).
    static void store_value(std::byte* to, const T& row) {
        store_fixed(to, row, std::make_index_sequence<kColumns - kKeyColumns>{});
        if (value_size(row) <= kRowBytesMax - kKeyBytes) {
            store_text<std::uint16_t>(to + kFixedBytes, row);
        } else {
            std::memcpy(to + kFixedBytes, &kWideMark, sizeof kWideMark);
            store_text<std::uint32_t>(to + kFixedBytes + sizeof kWideMark, row);
        }
    }

    // The same table as the catalog describes it.
    static Result<Schema> schema() {
        std::vector<bidstore::Column> columns;
        for (std::size_t i = 0; i < kColumns; ++i) {
            const bool fixed = kTypes[i] == ColumnType::kFixed;
            columns.push_back({std::string(kNames[i]), kTypes[i],
                               static_cast<std::uint16_t>(fixed ? kWidths[i] : 0)});
        }
        return Schema::make(std::string(table.name), std::move(columns),
                            static_cast<std::uint16_t>(kKeyColumns), time_index(),
                            table.time.unit);
    }

  private:
    template <auto Member>
    static consteval std::size_t find() {
        std::size_t found = kColumns;
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            ((same_member<Column<I>::kMember, Member>() ? void(found = I) : void()), ...);
        }(std::make_index_sequence<kColumns>{});
        return found;
    }
    template <auto A, auto B>
    static consteval bool same_member() {
        if constexpr (std::is_same_v<decltype(A), decltype(B)>) {
            return A == B;
        } else {
            return false;
        }
    }

    static consteval bool has_float(std::size_t from, std::size_t to) {
        for (std::size_t i = from; i < to; ++i) {
            if (kTypes[i] == ColumnType::kF32 || kTypes[i] == ColumnType::kF64) return true;
        }
        return false;
    }
    static consteval bool variable_last() {
        return count_variable(kColumns - kVariableColumns, kColumns) == kVariableColumns;
    }
    static consteval bool widths_fit() {
        for (std::size_t i = 0; i < kColumns; ++i) {
            if (!kVariables[i] && (kWidths[i] == 0 || kWidths[i] > 2048)) return false;
        }
        return true;
    }
    template <std::size_t... I>
    static consteval bool same_class(std::index_sequence<I...>) {
        return (std::is_base_of_v<typename Column<I>::class_type, T> && ...);
    }
    static constexpr bool well_formed(std::string_view name) {
        if (name.empty() || name.size() > kNameBytesMax) return false;
        for (char c : name) {
            const bool letter = c >= 'a' && c <= 'z';
            if (!letter && !(c >= '0' && c <= '9') && c != '_') return false;
        }
        return name[0] >= 'a' && name[0] <= 'z';
    }
    static consteval bool names_well_formed() {
        for (std::string_view name : kNames) {
            if (!well_formed(name)) return false;
        }
        return well_formed(table.name);
    }
    static consteval bool names_unique() {
        for (std::size_t i = 0; i < kColumns; ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                if (kNames[i] == kNames[j]) return false;
            }
        }
        return true;
    }
    template <std::size_t... I>
    static consteval bool members_unique(std::index_sequence<I...>) {
        return ((find<Column<I>::kMember>() == I) && ...);
    }
    static constexpr std::uint16_t time_index() {
        for (std::size_t i = 0; i < kColumns; ++i) {
            if (!table.time.name.empty() && kNames[i] == table.time.name) {
                return static_cast<std::uint16_t>(i);
            }
        }
        return kNoTimeColumn;
    }
    static consteval bool time_is_timestamp() {
        if (table.time.name.empty()) return true;
        if (time_index() == kNoTimeColumn) return false;
        const ColumnType type = kTypes[time_index()];
        return type == ColumnType::kTimestamp || type == ColumnType::kU64;
    }

    template <std::size_t I>
    static typename Column<I>::type load(std::span<const std::byte> key,
                                         std::span<const std::byte> value) {
        if constexpr (Column<I>::kVariable) {
            return load_view(value, kOffsets[I]);
        } else {
            const std::span<const std::byte> from = I < kKeyColumns ? key : value;
            if (from.size() < kOffsets[I] + kWidths[I]) return {};
            return StoredColumn<I>::load(from.data() + kOffsets[I]);
        }
    }
    static constexpr std::uint16_t kWideMark = 0xffff;
    static constexpr std::uint16_t kReferenceFlag = 0x8000;

    static std::uint16_t load_narrow_end(std::span<const std::byte> value, std::uint32_t number) {
        std::uint16_t end = 0;
        racy_copy(&end, value.data() + kFixedBytes + 2 * number, sizeof(end));
        return end;
    }
    static bool is_wide(std::span<const std::byte> value) {
        return load_narrow_end(value, 0) == kWideMark;
    }
    static std::uint32_t load_end(std::span<const std::byte> value, std::uint32_t number,
                                  bool wide) {
        if (!wide) return load_narrow_end(value, number) & ~std::uint32_t{kReferenceFlag};
        std::uint32_t end = 0;
        racy_copy(&end, value.data() + kFixedBytes + 2 + 4 * number, sizeof(end));
        return end;
    }
    static std::string_view load_view(std::span<const std::byte> value, std::uint32_t number) {
        if (value.size() < kTextOffset) return {};
        const bool wide = is_wide(value);
        if (!wide && (load_narrow_end(value, number) & kReferenceFlag) != 0) return {};
        const std::uint32_t offset = wide ? kWideTextOffset : kTextOffset;
        if (value.size() < offset) return {};
        const auto room = static_cast<std::uint32_t>(value.size() - offset);
        std::uint32_t end = load_end(value, number, wide);
        std::uint32_t begin = number == 0 ? 0 : load_end(value, number - 1, wide);
        if (end > room) end = room;
        if (begin > end) begin = end;
        const auto text = value.subspan(offset + begin, end - begin);
        return {static_cast<const char*>(static_cast<const void*>(text.data())), text.size()};
    }
    template <class End>
    static void store_text(std::byte* ends, const T& row) {
        std::byte* const text = ends + sizeof(End) * kVariableColumns;
        End end = 0;
        for_each_variable(row, [&](std::string_view view) {
            if (!view.empty()) std::memcpy(text + end, view.data(), view.size());
            end = static_cast<End>(end + view.size());
            std::memcpy(ends, &end, sizeof(end));
            ends += sizeof(end);
        });
    }
    template <std::size_t... I>
    static void load_all(T& row, std::span<const std::byte> key, std::span<const std::byte> value,
                         std::index_sequence<I...>) {
        ((row.*Column<I>::kMember = load<I>(key, value)), ...);
    }
    template <std::size_t... I>
    static void store_fixed([[maybe_unused]] std::byte* to, [[maybe_unused]] const T& row,
                            std::index_sequence<I...>) {
        (store_one_fixed<I + kKeyColumns>(to, row), ...);
    }
    template <std::size_t I>
    static void store_one_fixed(std::byte* to, const T& row) {
        if constexpr (!Column<I>::kVariable) {
            StoredColumn<I>::store(to + kOffsets[I], row.*Column<I>::kMember);
        }
    }
    template <class Visit>
    static void for_each_variable([[maybe_unused]] const T& row, [[maybe_unused]] Visit&& visit) {
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            (visit(row.*Column<kColumns - kVariableColumns + I>::kMember), ...);
        }(std::make_index_sequence<kVariableColumns>{});
    }
};

// A row read out of a page: T itself when all columns have a fixed width.
template <class T>
using Copy = typename Description<T>::CopyType;

// ---- keys and rows as bytes ---------------------------------------------------------------------

// The whole key of a row of T.
template <class T>
class Key {
  public:
    // From the parts in the order of keys(...), or from a Key.
    template <class... Parts>
    static Key from(const Parts&... parts) {
        if constexpr (sizeof...(Parts) == 1 && (std::is_same_v<Parts, Key> && ...)) {
            return (parts, ...);
        } else {
            static_assert(sizeof...(Parts) == Description<T>::kKeyColumns,
                          "bidstore: a key has as many parts as the table has key columns");
            Key key;
            key.store(std::index_sequence_for<Parts...>{}, parts...);
            return key;
        }
    }
    static Key of(const T& row) {
        Key key;
        Description<T>::store_key(key.bytes_.data(), row,
                                  std::make_index_sequence<Description<T>::kKeyColumns>{});
        return key;
    }
    std::span<const std::byte> span() const { return bytes_; }
    friend bool operator==(const Key&, const Key&) = default;

  private:
    Key() = default;
    template <std::size_t... I, class... Parts>
    void store(std::index_sequence<I...>, const Parts&... parts) {
        (Description<T>::template store_key_part<I>(bytes_.data(), parts), ...);
    }
    std::array<std::byte, Description<T>::kKeyBytes> bytes_;
};

// The first parts of a key: a bound. None: no bound.
template <class T>
class Prefix {
  public:
    Prefix() = default;
    Prefix(const Key<T>& key) : size_bytes_(Description<T>::kKeyBytes) {
        std::memcpy(bytes_.data(), key.span().data(), size_bytes_);
    }
    template <class... Parts>
    static Prefix from(const Parts&... parts) {
        static_assert(sizeof...(Parts) <= Description<T>::kKeyColumns,
                      "bidstore: a prefix has at most as many parts as the table has key columns");
        Prefix prefix;
        prefix.store(std::index_sequence_for<Parts...>{}, parts...);
        prefix.size_bytes_ = Description<T>::key_bytes_of(sizeof...(Parts));
        return prefix;
    }
    std::span<const std::byte> span() const { return std::span(bytes_).first(size_bytes_); }

  private:
    template <std::size_t... I, class... Parts>
    void store(std::index_sequence<I...>, const Parts&... parts) {
        (Description<T>::template store_key_part<I>(bytes_.data(), parts), ...);
    }
    std::array<std::byte, Description<T>::kKeyBytes> bytes_{};
    std::uint32_t size_bytes_ = 0;
};

// A row laid out for the ring, whole.
template <class T>
class EncodedRow {
  public:
    explicit EncodedRow(const T& row)
        : key_(Key<T>::of(row)), size_bytes_(Description<T>::value_size(row)) {
        if (!fits()) return;
        if (size_bytes_ > value_.size()) large_.resize(size_bytes_);
        Description<T>::store_value(large_.empty() ? value_.data() : large_.data(), row);
    }
    bool fits() const { return size_bytes_ != ~std::uint32_t{0}; }
    std::span<const std::byte> key() const { return key_.span(); }
    std::span<const std::byte> value() const {
        return std::span(large_.empty() ? value_.data() : large_.data(), size_bytes_);
    }

  private:
    Key<T> key_;
    std::uint32_t size_bytes_;
    std::array<std::byte, Description<T>::kValueBytesMax> value_;
    std::vector<std::byte> large_;  // a row that does not fit a page
};

}  // namespace bidstore
