// Redis 7.0 on a Unix socket, a server of its own:
//   - a row is a string under its key, which is its fastest get, and its key is a member of its
//     entity's sorted set, for scans; both change together in MULTI. A scan is one SORT BY nosort
//     GET *, which fetches the values of the newest members in one round trip;
//   - sorted sets stay compact (zset-max-listpack-entries) up to 512 rows of an entity;
//   - the append-only file on, never rewritten meanwhile; no snapshots; a connection for each
//     thread; a depth is pipelined.
// With sync 1: appendfsync always; with sync 0: appendfsync no. scan_from stays within the entity
// of its first row: keys in a dictionary have no order.
#include <hiredis/hiredis.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/compare_engine.h"
#include "bench/measure.h"

namespace bench {
namespace {

struct FreeReply {
    void operator()(redisReply* reply) const { ::freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class Link {
  public:
    explicit Link(const std::string& socket) : raw_(::redisConnectUnix(socket.c_str())) {
        if (raw_ == nullptr || raw_->err != 0) fail("Redis: cannot connect to " + socket);
    }
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() { ::redisFree(raw_); }

    void send(std::initializer_list<std::string_view> words) {
        std::array<const char*, 16> texts{};
        std::array<std::size_t, 16> sizes{};
        std::size_t count = 0;
        for (const std::string_view word : words) {
            texts[count] = word.data();
            sizes[count++] = word.size();
        }
        send(static_cast<int>(count), texts.data(), sizes.data());
    }
    void send(int count, const char** texts, const std::size_t* sizes) {
        if (::redisAppendCommandArgv(raw_, count, texts, sizes) != REDIS_OK) broken();
    }
    Reply receive() {
        void* raw = nullptr;
        if (::redisGetReply(raw_, &raw) != REDIS_OK) broken();
        Reply reply(static_cast<redisReply*>(raw));
        if (reply->type == REDIS_REPLY_ERROR) fail("Redis: " + std::string(reply->str));
        return reply;
    }
    Reply call(std::initializer_list<std::string_view> words) {
        send(words);
        return receive();
    }
    // Sends what is buffered without waiting for an answer.
    void flush() {
        for (int done = 0; done == 0;) {
            if (::redisBufferWrite(raw_, &done) != REDIS_OK) broken();
        }
    }

  private:
    [[noreturn]] void broken() { fail(std::string("Redis: ") + raw_->errstr); }
    redisContext* raw_;
};

std::string_view view(const std::array<char, 16>& bytes) { return {bytes.data(), bytes.size()}; }

class RedisSession : public Session {
  public:
    RedisSession(const std::string& socket, const SessionOptions& options)
        : link_(socket), depth_(options.depth) {
        link_.call({"CONFIG", "SET", "appendfsync", options.sync ? "always" : "no"});
    }

    Found get(const RowKey& key) override {
        settle_all();
        return found_in(*link_.call({"GET", view(key.bytes())}));
    }

    Found multi_get(std::span<const RowKey> keys) override {
        settle_all();
        std::array<std::array<char, 16>, kKeysTogether> bytes;
        std::array<const char*, kKeysTogether + 1> texts{"MGET"};
        std::array<std::size_t, kKeysTogether + 1> sizes{4};
        for (std::size_t i = 0; i < keys.size(); ++i) {
            bytes[i] = keys[i].bytes();
            texts[i + 1] = bytes[i].data();
            sizes[i + 1] = bytes[i].size();
        }
        link_.send(static_cast<int>(keys.size() + 1), texts.data(), sizes.data());
        const Reply reply = link_.receive();
        Found all;
        for (std::size_t i = 0; i < reply->elements; ++i) {
            const Found one = found_in(*reply->element[i]);
            all.rows += one.rows;
            all.sum += one.sum;
        }
        return all;
    }

    Found scan_newest(std::uint64_t entity, std::uint64_t limit) override {
        settle_all();
        const std::string count = std::to_string(limit);
        const Reply reply = link_.call({"SORT", set_of(entity), "BY", "nosort", "LIMIT", "0", count,
                                        "DESC", "GET", "#", "GET", "*"});
        return sum_rows(*reply);
    }

    Found scan_from(const RowKey& key, std::uint64_t limit) override {
        settle_all();
        const std::string count = std::to_string(limit);
        const std::string time = std::to_string(key.time);
        const Reply members = link_.call(
            {"ZRANGE", set_of(key.entity), time, "+inf", "BYSCORE", "LIMIT", "0", count});
        if (members->elements == 0) return {};
        std::vector<const char*> texts{"MGET"};
        std::vector<std::size_t> sizes{4};
        Found found;
        for (std::size_t i = 0; i < members->elements; ++i) {
            const redisReply& member = *members->element[i];
            texts.push_back(member.str);
            sizes.push_back(member.len);
            found.sum += time_of(member);
        }
        link_.send(static_cast<int>(texts.size()), texts.data(), sizes.data());
        const Reply values = link_.receive();
        for (std::size_t i = 0; i < values->elements; ++i) {
            found.sum += word_of(*values->element[i]);
            ++found.rows;
        }
        return found;
    }

    std::uint64_t counter(std::uint64_t number) override {
        settle_all();
        const Reply reply = link_.call({"GET", counter_name(number)});
        return reply->type == REDIS_REPLY_STRING ? std::stoull(reply->str) : 0;
    }

    void submit(const Write& write) override {
        while (under_way_.size() - begun_ >= depth_) receive_one();
        if (write.kind == Write::Kind::kAdd) {
            link_.send({"INCRBY", counter_name(write.key.entity), std::to_string(write.word)});
            under_way_.push_back(1);
        } else {
            const auto key = write.key.bytes();
            fill_value(row_.data(), write.word);
            link_.send({"MULTI"});
            link_.send({"SET", view(key), {row_.data(), row_.size()}});
            link_.send(
                {"ZADD", set_of(write.key.entity), std::to_string(write.key.time), view(key)});
            link_.send({"EXEC"});
            under_way_.push_back(4);
        }
        if (depth_ == 1)
            receive_one();
        else if (under_way_.size() - begun_ >= depth_ / 2)
            link_.flush();
    }

    std::size_t acknowledged(bool wait) override {
        if (wait && acknowledged_ == 0 && under_way_.size() > begun_) receive_one();
        return std::exchange(acknowledged_, 0);
    }

  private:
    void receive_one() {
        for (int i = 0; i < under_way_[begun_]; ++i) link_.receive();
        ++acknowledged_;
        if (++begun_ < under_way_.size()) return;
        under_way_.clear();
        begun_ = 0;
    }
    // Replies come in order: what was written before a read is answered before it.
    void settle_all() {
        while (under_way_.size() > begun_) receive_one();
    }

    std::string_view set_of(std::uint64_t entity) {
        set_name_ = "e" + std::to_string(entity);
        return set_name_;
    }
    std::string_view counter_name(std::uint64_t number) {
        set_name_ = "c" + std::to_string(number);
        return set_name_;
    }

    static Found found_in(const redisReply& reply) {
        if (reply.type == REDIS_REPLY_NIL) return {};
        if (reply.len != kValueBytes) fail("Redis: a value has another size");
        return {1, sum_of(reply.str)};
    }
    static std::uint64_t time_of(const redisReply& member) {
        if (member.type != REDIS_REPLY_STRING || member.len != 16) fail("Redis: a strange member");
        std::uint64_t time = 0;
        std::memcpy(&time, member.str + 8, sizeof time);
        return __builtin_bswap64(time);
    }
    static std::uint64_t word_of(const redisReply& value) {
        if (value.type != REDIS_REPLY_STRING) fail("Redis: a member without its row");
        std::uint64_t word = 0;
        std::memcpy(&word, value.str, sizeof word);
        return word;
    }
    static Found sum_rows(const redisReply& reply) {
        Found found;
        for (std::size_t i = 0; i + 1 < reply.elements; i += 2) {
            found.sum += time_of(*reply.element[i]) + word_of(*reply.element[i + 1]);
            ++found.rows;
        }
        return found;
    }

    Link link_;
    std::uint32_t depth_;
    std::vector<int> under_way_;  // replies that each write gets, from begun_ on
    std::size_t begun_ = 0;
    std::size_t acknowledged_ = 0;
    std::string set_name_;
    std::array<char, kValueBytes> row_{};
};

class Redis : public Engine {
  public:
    explicit Redis(const EngineOptions& options)
        : Engine(options), socket_(options.directory + "/redis.sock") {}
    ~Redis() override {
        if (server_ > 0) end_server(server_);
    }

    void start() override {
        const std::string log = options().directory + "/redis.log";
        server_ = start_server(
            {"redis-server", "--port", "0", "--unixsocket", socket_, "--save", "", "--appendonly",
             "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0", "--dir",
             options().directory, "--zset-max-listpack-entries", "512"},
            log);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (!std::filesystem::exists(socket_)) {
            if (std::chrono::steady_clock::now() > end)
                fail("redis-server does not listen: " + log);
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }
    std::vector<pid_t> servers() const override { return {server_}; }
    bool many_processes() const override { return true; }
    void connect() override {}
    void disconnect() override {}
    std::unique_ptr<Session> session(const SessionOptions& options) override {
        return std::make_unique<RedisSession>(socket_, options);
    }

  private:
    std::string socket_;
    pid_t server_ = 0;
};

}  // namespace

std::unique_ptr<Engine> make_redis(const EngineOptions& options) {
    return std::make_unique<Redis>(options);
}

}  // namespace bench
