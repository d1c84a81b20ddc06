#include "shm/error.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <utility>

namespace bidstore {
namespace {

using Text = std::shared_ptr<std::string>;  // its use_count() says who still holds it

Result<Text> failed() { return {Error::kNoSpace, "the disk is full: make room on it"}; }

TEST(ErrorNames, EachErrorHasItsOwn) {
    std::set<std::string_view> names;
    for (std::uint32_t i = 0; i < kErrorCount; ++i) {
        names.insert(error_name(static_cast<Error>(i)));
    }
    EXPECT_EQ(names.size(), kErrorCount);
}

TEST(ResultOfACall, HoldsAValueOrAFailure) {
    const Result<int> value = 7;
    EXPECT_TRUE(value.ok());
    EXPECT_EQ(*value, 7);
    EXPECT_EQ(value.error(), Error::kOk);
    const Result<Text> failure = failed();
    EXPECT_FALSE(failure);
    EXPECT_EQ(failure.error(), Error::kNoSpace);
    EXPECT_EQ(failure.failure().what, "the disk is full: make room on it");
}

TEST(ResultOfACall, CopiesShareAndMovesHandOver) {
    const Text text = std::make_shared<std::string>("row");
    Result<Text> first = text;
    EXPECT_EQ(text.use_count(), 2);
    Result<Text> copy = first;
    EXPECT_EQ(text.use_count(), 3);
    Result<Text> moved = std::move(first);
    EXPECT_EQ(text.use_count(), 3) << "a move makes no further owner";
    EXPECT_EQ(**moved, "row");
    EXPECT_EQ(**copy, "row");
    const Result<Text> failure = failed();
    const Result<Text> same = failure;
    EXPECT_EQ(same.failure().what, failure.failure().what);
}

TEST(ResultOfACall, AssignmentEndsWhatWasThere) {
    const Text text = std::make_shared<std::string>("row");
    Result<Text> result = text;
    result = failed();
    EXPECT_EQ(text.use_count(), 1) << "the failure took the value's place";
    EXPECT_EQ(result.error(), Error::kNoSpace);
    const Result<Text> other = text;
    result = other;
    EXPECT_EQ(text.use_count(), 3);
    Result<Text>& itself = result;
    result = itself;
    result = std::move(itself);
    EXPECT_EQ(**result, "row");
    EXPECT_EQ(text.use_count(), 3);
}

TEST(ResultOfACall, CarriesWhatCanOnlyBeMoved) {
    static_assert(!std::is_copy_constructible_v<Result<std::unique_ptr<int>>>);
    static_assert(std::is_nothrow_move_constructible_v<Result<std::unique_ptr<int>>>);
    Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
    const std::unique_ptr<int> taken = std::move(*result);
    EXPECT_EQ(*taken, 5);
}

TEST(ResultOfACallDeathTest, AskingForWhatIsNotThereEndsTheProcess) {
    const Result<int> value = 7;
    const Result<Text> failure = failed();
    EXPECT_DEATH({ static_cast<void>(*failure); }, "CHECK failed: ok_");
    EXPECT_DEATH({ static_cast<void>(value.failure()); }, "CHECK failed: !ok_");
}

}  // namespace
}  // namespace bidstore
