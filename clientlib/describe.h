// Compile-time descriptions: how a plain struct says what its table looks like. Included by
// bidstore.h, which shows one in use; clientlib/row_codec.h checks it and makes bytes of rows.
//
// A member may be an integer (or an enum over one), float, double, Bytes<N>, or std::string_view
// for a column of variable length. What cannot be a table does not compile, and the message says
// why.
//
// Who: everything here is constexpr.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "engine/page/schema.h"

namespace bidstore {

// N bytes without meaning of their own: ids, hashes. Compared as bytes.
template <std::size_t N>
struct Bytes {
    std::array<std::uint8_t, N> data{};

    static Bytes from(const void* source) {
        Bytes bytes;
        std::memcpy(bytes.data.data(), source, N);
        return bytes;
    }
    friend constexpr auto operator<=>(const Bytes&, const Bytes&) = default;
};

// Specialised for each struct that is a table: `static constexpr auto table =
// bidstore::table<T>(…)`. Names in it are looked up in bidstore first: a struct called Row or Key
// is written ::Row, ::Key.
template <class T>
struct Describe;

template <ColumnType kType>
struct TypeTag {};
// Column types that the member's type alone does not tell, written column<&Bid::time>("time",
// timestamp). They are functions, as std::hex is, so that variables may have these names.
constexpr void timestamp(TypeTag<ColumnType::kTimestamp>) {}  // on std::uint64_t
constexpr void text(TypeTag<ColumnType::kText>) {}            // on std::string_view: the default
constexpr void bytes(TypeTag<ColumnType::kBytes>) {}          // on std::string_view

// ---- from member to column ----------------------------------------------------------------------

template <class Pointer>
struct MemberOf;
template <class Class, class Type>
struct MemberOf<Type Class::*> {
    using class_type = Class;
    using type = Type;
};
template <auto Member>
using MemberType = typename MemberOf<decltype(Member)>::type;

template <class M>
struct IsFixedBytes : std::false_type {};
template <std::size_t N>
struct IsFixedBytes<Bytes<N>> : std::true_type {};

// The integer behind an integer or an enum; void for everything else (and for bool).
template <class M>
consteval auto integer_of() {
    if constexpr (std::is_enum_v<M>) {
        return std::underlying_type_t<M>{};
    } else if constexpr (std::is_integral_v<M> && !std::is_same_v<M, bool>) {
        return M{};
    }
}
template <class M>
inline constexpr bool kIsInteger = !std::is_void_v<decltype(integer_of<M>())>;

template <class M>
consteval ColumnType integer_column_type() {
    using I = decltype(integer_of<M>());
    constexpr ColumnType kFirst = std::is_signed_v<I> ? ColumnType::kI8 : ColumnType::kU8;
    return static_cast<ColumnType>(static_cast<int>(kFirst) + std::countr_zero(sizeof(I)));
}

template <class M>
consteval ColumnType column_type_of() {
    if constexpr (kIsInteger<M>) {
        return integer_column_type<M>();
    } else if constexpr (std::is_same_v<M, float>) {
        return ColumnType::kF32;
    } else if constexpr (std::is_same_v<M, double>) {
        return ColumnType::kF64;
    } else if constexpr (IsFixedBytes<M>::value) {
        return ColumnType::kFixed;
    } else {
        static_assert(std::is_same_v<M, std::string_view>,
                      "bidstore: a column is an integer, float, double, bidstore::Bytes<N> or "
                      "std::string_view; bool is not (use std::uint8_t)");
        return ColumnType::kText;
    }
}

template <auto Member, ColumnType Type>
struct ColumnDescription {
    static constexpr auto kMember = Member;
    static constexpr ColumnType kType = Type;
    using class_type = typename MemberOf<decltype(Member)>::class_type;
    using type = MemberType<Member>;
    static constexpr bool kVariable = Type == ColumnType::kText || Type == ColumnType::kBytes;
    static constexpr bool kFloat = Type == ColumnType::kF32 || Type == ColumnType::kF64;
    static constexpr std::uint32_t kWidth =
        kVariable ? 0 : static_cast<std::uint32_t>(sizeof(type));

    std::string_view name;
};

template <auto Member>
consteval auto column(std::string_view name) {
    return ColumnDescription<Member, column_type_of<MemberType<Member>>()>{name};
}
template <auto Member, ColumnType Type>
consteval auto column(std::string_view name, void (*)(TypeTag<Type>)) {
    using M = MemberType<Member>;
    static_assert(Type != ColumnType::kTimestamp || std::is_same_v<M, std::uint64_t>,
                  "bidstore: a timestamp column is a std::uint64_t");
    static_assert(Type == ColumnType::kTimestamp || std::is_same_v<M, std::string_view>,
                  "bidstore: text and bytes columns are std::string_view");
    return ColumnDescription<Member, Type>{name};
}

template <class... Columns>
struct KeyColumns {
    std::tuple<Columns...> columns;
};
template <class... Columns>
struct ValueColumns {
    std::tuple<Columns...> columns;
};
template <class... Columns>
consteval auto keys(Columns... columns) {
    return KeyColumns<Columns...>{{columns...}};
}
template <class... Columns>
consteval auto values(Columns... columns) {
    return ValueColumns<Columns...>{{columns...}};
}

struct TimeColumn {
    std::string_view name;
    TimeUnit unit = TimeUnit::kMicroseconds;
};
consteval TimeColumn time_column(std::string_view name,
                                 TimeUnit unit = TimeUnit::kMicroseconds) {
    return TimeColumn{name, unit};
}

template <class T, std::size_t KeyCount, class... Columns>
struct TableDescription {
    static constexpr std::size_t kKeyColumns = KeyCount;
    static constexpr std::size_t kColumns = sizeof...(Columns);
    using columns_type = std::tuple<Columns...>;

    std::string_view name;
    columns_type columns;
    TimeColumn time;
};

template <class T, class... Keys, class... Values>
consteval auto table(std::string_view name, KeyColumns<Keys...> key, ValueColumns<Values...> value,
                     TimeColumn time = {}) {
    static_assert(sizeof...(Keys) > 0, "bidstore: a table needs at least one key column");
    return TableDescription<T, sizeof...(Keys), Keys..., Values...>{
        name, std::tuple_cat(key.columns, value.columns), time};
}
template <class T, class... Keys>
consteval auto table(std::string_view name, KeyColumns<Keys...> key, TimeColumn time = {}) {
    return table<T>(name, key, ValueColumns<>{}, time);
}

}  // namespace bidstore
