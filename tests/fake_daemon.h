// A daemon for the client library's tests: a real socket, real segments, pages made by hand, and an
// engine that is a loop of a few lines. What it decides is the test's to say.
//
// A FakeDisk outlives daemons, as a file does: the pages that may be asked for, the writes applied.
// Who: the test thread builds and destroys; the daemon's own thread serves in between.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "clientlib/catalog_row.h"
#include "clientlib/bidstore.h"
#include "engine/inner_edit.h"
#include "engine/leaf_edit.h"
#include "engine/page/catalog_schema.h"
#include "engine/page/search.h"
#include "shm/call_slot.h"
#include "shm/doorbell.h"
#include "shm/reader_slot.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/version_writer.h"

namespace bidstore {

// A directory that goes with the test.
class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "bidstore-client-XXXXXX").string();
        CHECK(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

// What survives a daemon.
struct FakeDisk {
    struct Write {
        std::uint64_t number;
        std::vector<std::byte> bytes;
    };
    std::mutex lock;
    std::vector<Write> applied;           // in order
    std::uint64_t decided = 0;            // newest number decided
    std::map<std::uint32_t, std::array<std::byte, kPageBytes>> pages;  // not resident
};

inline Descriptor listen_at(const std::string& path) {
    Descriptor listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    CHECK_OP(path.size(), <, sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    CHECK(::bind(listener.number(), static_cast<sockaddr*>(static_cast<void*>(&address)),
                 sizeof address) == 0);
    CHECK(::listen(listener.number(), 64) == 0);
    return listener;
}

class FakeDaemon {
  public:
    struct Options {
        std::uint32_t frame_count = 256;
        std::uint32_t reader_slots = 8;
        std::uint32_t call_slots = 16;
        std::uint32_t ring_bytes = 1u << 20;
        std::uint64_t directory_bytes = 0;
        Error refuse = Error::kOk;           // every connection
        std::uint64_t fingerprint_error = 0; // added to the one in the welcome
        std::uint64_t clock_ahead_ns = 0;    // of the clients', as in a time namespace
        std::uint8_t file = 1;               // of its uuid
    };
    // kTimedOut: the write is decided, but its answer gets lost.
    using Judge = std::function<Answer(std::uint64_t number, std::span<const std::byte> bytes)>;

    FakeDaemon(std::string socket, FakeDisk& disk, Options options)
        : options_(options),
          disk_(disk),
          socket_path_(std::move(socket)),
          pool_(make_pool(options)),
          versions_(pool_) {}
    FakeDaemon(std::string socket, FakeDisk& disk)
        : FakeDaemon(std::move(socket), disk, Options{}) {}
    ~FakeDaemon() { stop(); }

    // ---- pages, before start() or while nothing is read
    // -------------------------------------------

    // A new version of the page, filled by `make`; visible from publish(csn) on.
    void put_page(PageId page, std::uint64_t csn, TableId table,
                  const std::function<void(std::byte*)>& make) {
        alignas(8) std::byte image[kPageBytes] = {};
        page_header(image).page_id = page.value;
        page_header(image).table_id = table.value;
        make(image);
        const std::lock_guard hold(disk_.lock);
        const FrameId frame{next_frame_++};
        versions_.fill(pool_.frame(frame), csn, image);
        versions_.link(frame.value, versions_.mapped(page));
        versions_.map(page, frame.value);
    }
    void publish(std::uint64_t csn) { versions_.publish(csn); }
    // Takes the page out of the pool; a request brings it back.
    void evict(PageId page) {
        const std::lock_guard hold(disk_.lock);
        const FrameId frame{versions_.mapped(page)};
        std::memcpy(disk_.pages[page.value].data(), pool_.frame(frame), kPageBytes);
        versions_.map(page, kNoFrame);
    }
    PoolSegment& pool() { return pool_; }
    VersionWriter& versions() { return versions_; }

    struct TableEntry {
        TableId id;
        PageId root;
        Schema schema;
        std::uint32_t flags = 0;
    };
    // The catalog as one leaf.
    void put_catalog(std::uint64_t csn, const std::vector<TableEntry>& tables) {
        const LeafLayout layout = LeafLayout::of(catalog_schema());
        put_page(kCatalogRootPage, csn, kCatalogTable, [&](std::byte* page) {
            LeafEdit leaf(page, layout, catalog_schema());
            leaf.init();
            for (std::uint32_t i = 0; i < tables.size(); ++i) {
                const std::string schema = tables[i].schema.encode();
                CatalogRow row;
                row.table_id = tables[i].id.value;
                row.root = tables[i].root.value;
                row.flags = tables[i].flags;
                row.name = tables[i].schema.name();
                row.schema = schema;
                const EncodedRow<CatalogRow> encoded(row);
                leaf.insert(i, encoded.key().data(), encoded.value());
            }
        });
    }
    static constexpr PageId kCatalogRootPage{4};

    // ---- serving
    // ----------------------------------------------------------------------------------

    // Says what becomes of a write that was not seen before; by default it is applied.
    void judge(Judge judge) {
        const std::lock_guard hold(disk_.lock);
        judge_ = std::move(judge);
    }
    // While false, records stay in the rings: from its return on.
    void serve_rings(bool serve) {
        serve_ = serve;
        const std::uint64_t seen = rounds_;
        while (running_ && rounds_ < seen + 2) std::this_thread::yield();
    }
    // What a step of a load gets for an answer; kTimedOut: none.
    void answer_load(LoadStep step, Error error) {
        load_answers_[static_cast<std::uint32_t>(step)] = error;
    }
    // The steps of loads that came so far, without what is behind them.
    std::vector<LoadRequest> load_steps() {
        const std::lock_guard hold(load_steps_lock_);
        return load_steps_;
    }
    // Applied writes get no answer any more.
    void swallow_answers(bool swallow) { swallow_ = swallow; }

    void start() {
        pool_.announce();
        pool_.header().engine.mode.store(EngineMode::kServing);
        listener_ = listen_at(socket_path_);
        running_ = true;
        thread_ = std::thread([this] { run(); });
    }
    // As a kill: the sockets close, the segments stay as they are.
    void stop() {
        if (!thread_.joinable()) return;
        running_ = false;
        thread_.join();
        listener_ = {};
        ::unlink(socket_path_.c_str());
        hang_up_all();
    }
    // Ends the leases of everything held now.
    void revoke_all() {
        revoke_wanted_ = true;
        while (revoke_wanted_) std::this_thread::yield();
    }
    // Hangs up on every client, and serves on.
    void cut_off_all() {
        cut_off_wanted_ = true;
        while (cut_off_wanted_) std::this_thread::yield();
    }
    // Whether a reader said that it uses no frame, in the daemon's last round.
    bool somebody_rests() const { return somebody_rests_; }
    std::uint32_t page_requests() const { return page_requests_; }
    std::uint32_t pages_requested() const { return pages_requested_; }

  private:
    struct Client {
        int socket;
        std::unique_ptr<ClientSegment> segment;
        std::unique_ptr<RingConsumer> ring;
        Descriptor doorbell;
        Answers answers;
        std::vector<std::byte> buffer;  // for a record of the ring
    };

    static PoolSegment make_pool(const Options& options) {
        std::random_device random;
        PoolShape shape;
        shape.frame_count = options.frame_count;
        shape.page_count = 1024;
        shape.slot_count = 64;
        shape.instance_id = (std::uint64_t{random()} << 32 | random()) | 1;
        shape.catalog_root = kCatalogRootPage.value;
        shape.file_uuid[0] = options.file;
        shape.directory_bytes = options.directory_bytes;
        Result<PoolSegment> pool = PoolSegment::create(shape, HugePages::kOff, false);
        CHECK(pool.ok());
        return std::move(*pool);
    }

    void run() {
        while (running_) {
            ++rounds_;
            const auto now = std::chrono::steady_clock::now().time_since_epoch();
            pool_.header().engine.heartbeat_ns.store(static_cast<std::uint64_t>(
                std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()) +
                options_.clock_ahead_ns);
            pollfd wait{listener_.number(), POLLIN, 0};
            if (::poll(&wait, 1, 0) > 0) {
                welcome(::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC));
            }
            if (revoke_wanted_) revoke();
            if (cut_off_wanted_) hang_up_all();
            somebody_rests_ = look_for_rest();
            bool busy = false;
            if (serve_) {
                for (Client& client : clients_) busy = serve(client) || busy;
            }
            if (!busy) std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    }

    void welcome(int socket) {
        Hello hello{};
        CHECK(::recv(socket, &hello, sizeof hello, 0) == sizeof hello);
        Welcome reply{};
        reply.magic = kHelloMagic;
        reply.abi_version = kAbiVersion;
        reply.fingerprint = kLayoutFingerprint + options_.fingerprint_error;
        reply.error = static_cast<std::uint32_t>(options_.refuse);
        std::memcpy(reply.session_id, hello.session_id, 16);
        if (std::all_of(hello.session_id, hello.session_id + 16, [](auto b) { return b == 0; })) {
            std::random_device random;
            for (std::uint8_t& byte : reply.session_id) byte = static_cast<std::uint8_t>(random());
        }
        if (options_.refuse != Error::kOk) {
            std::strncpy(reply.message, "refused by the test", sizeof reply.message - 1);
            // Whose deadline passed is gone.
            static_cast<void>(::send(socket, &reply, sizeof reply, MSG_NOSIGNAL));
            ::close(socket);
            return;
        }
        Client client{socket, nullptr, nullptr, {}, {}, {}};
        ClientShape shape;
        shape.slot_count = options_.reader_slots;
        shape.call_slot_count = options_.call_slots;
        shape.ring_bytes = options_.ring_bytes;
        shape.first_slot = static_cast<std::uint32_t>(clients_.size()) * options_.reader_slots;
        shape.instance_id = pool_.header().instance_id;
        std::memcpy(shape.session_id, reply.session_id, 16);
        Result<ClientSegment> segment = ClientSegment::create(shape);
        CHECK(segment.ok());
        client.segment = std::make_unique<ClientSegment>(std::move(*segment));
        {
            const std::lock_guard hold(disk_.lock);
            client.segment->announce(disk_.decided);
        }
        client.ring = std::make_unique<RingConsumer>(client.segment->ring_control(),
                                                     client.segment->ring(),
                                                     client.segment->ring_bytes());
        Result<Descriptor> doorbell = make_doorbell();
        CHECK(doorbell.ok());
        client.doorbell = std::move(*doorbell);
        if (!send_descriptors(client, reply)) {
            ::close(socket);
            return;
        }
        clients_.push_back(std::move(client));
    }

    // False: the client is gone.
    bool send_descriptors(Client& client, Welcome& reply) {
        Result<Descriptor> pool = pool_.open_read_only();
        CHECK(pool.ok());
        const int numbers[3] = {pool->number(), client.segment->descriptor(),
                                client.doorbell.number()};
        iovec part{&reply, sizeof reply};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof numbers)] = {};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof numbers);
        std::memcpy(CMSG_DATA(header), numbers, sizeof numbers);
        return ::sendmsg(client.socket, &message, MSG_NOSIGNAL) == sizeof reply;
    }

    void hang_up_all() {
        for (Client& client : clients_) ::close(client.socket);
        clients_.clear();
        cut_off_wanted_ = false;
    }

    void revoke() {
        for (Client& client : clients_) {
            for (std::uint32_t i = 0; i < client.segment->slot_count(); ++i) {
                const SlotSighting seen = SlotWatcher::look(client.segment->slots()[i]);
                SlotWatcher::revoke(pool_.revoked()[client.segment->first_slot() + i],
                                    seen.episode);
            }
        }
        revoke_wanted_ = false;
    }

    bool look_for_rest() {
        for (Client& client : clients_) {
            for (std::uint32_t slot = 0; slot < client.segment->slot_count(); ++slot) {
                if (client.segment->slots()[slot].looked == kLookedNothing) return true;
            }
        }
        return false;
    }

    bool serve(Client& client) {
        client.buffer.resize(client.ring->record_bytes_max());
        TakenRecord record;
        bool any = false;
        while (client.ring->take(client.buffer, record) == TakeResult::kRecord) {
            any = true;
            if (record.kind == RecordKind::kPageRequest) {
                on_page_request(client, record);
            } else if (record.kind == RecordKind::kLoad) {
                on_load(client, record);
            } else {
                on_transaction(client, record);
            }
        }
        client.ring->publish_head();
        if (const std::uint32_t bits = client.answers.finish(client.segment->ring_control())) {
            futex_wake(client.segment->ring_control().answered, bits);
        }
        return any;
    }

    void on_page_request(Client& client, const TakenRecord& record) {
        ++page_requests_;
        std::uint32_t count = 0;
        std::memcpy(&count, record.payload.data(), 4);
        const std::lock_guard hold(disk_.lock);
        for (std::uint32_t i = 0; i < count; ++i) {
            std::uint32_t page = 0;
            std::memcpy(&page, record.payload.data() + 4 + 4 * i, 4);
            ++pages_requested_;
            if (versions_.mapped(PageId{page}) != kNoFrame) continue;
            const auto found = disk_.pages.find(page);
            if (found == disk_.pages.end()) {
                client.answers.give(client.segment->calls(), record.call_slot,
                                    record.call_generation, Error::kNoSuchPage, 0, i);
                return;
            }
            const FrameId frame{next_frame_++};
            std::uint64_t csn = 0;
            std::memcpy(&csn, found->second.data(), 8);
            versions_.fill(pool_.frame(frame), csn, found->second.data());
            versions_.map(PageId{page}, frame.value);
        }
        client.answers.give(client.segment->calls(), record.call_slot, record.call_generation,
                            Error::kOk);
    }

    // Every step of a load is answered as the test says, with kTimedOut not at all.
    void on_load(Client& client, const TakenRecord& record) {
        LoadRequest request{};
        std::memcpy(&request, record.payload.data(), sizeof request);
        {
            const std::lock_guard hold(load_steps_lock_);
            load_steps_.push_back(request);
        }
        const Error error = load_answers_[static_cast<std::uint32_t>(request.step)];
        if (error == Error::kTimedOut) return;
        client.answers.give(client.segment->calls(), record.call_slot, record.call_generation,
                            error);
    }

    // As the engine: a number seen before was applied, the next one is judged, a gap is an error
    // unless the client says that all before was decided.
    void on_transaction(Client& client, const TakenRecord& record) {
        Answer answer;
        {
            const std::lock_guard hold(disk_.lock);
            const std::uint64_t base = std::max(disk_.decided + 1, record.decided_below);
            if (record.write_number <= disk_.decided) {
                answer.csn = 0;
            } else if (record.write_number != base) {
                answer.error = Error::kSessionGap;
            } else {
                answer.csn = record.write_number + 1000;
                if (judge_) answer = judge_(record.write_number, record.payload);
                const bool farewell = answer.error == Error::kStopping ||
                                      answer.error == Error::kFenced;
                if (!farewell) disk_.decided = record.write_number;
                if (answer.error == Error::kOk) {
                    disk_.applied.push_back(
                        {record.write_number, {record.payload.begin(), record.payload.end()}});
                }
            }
        }
        if (swallow_ || answer.error == Error::kTimedOut) return;
        client.answers.give(client.segment->calls(), record.call_slot, record.call_generation,
                            answer.error, answer.csn, answer.failed_operation,
                            {answer.result, answer.result_count});
    }

    Options options_;
    FakeDisk& disk_;
    std::string socket_path_;
    PoolSegment pool_;
    VersionWriter versions_;
    std::uint32_t next_frame_ = 1;
    Descriptor listener_;
    Judge judge_;
    std::vector<Client> clients_;
    std::thread thread_;
    std::atomic<bool> running_ = false;
    std::atomic<bool> serve_ = true;
    std::atomic<std::uint64_t> rounds_ = 0;
    std::atomic<bool> swallow_ = false;
    std::array<std::atomic<Error>, 8> load_answers_{};  // by step
    std::mutex load_steps_lock_;
    std::vector<LoadRequest> load_steps_;
    std::atomic<bool> revoke_wanted_ = false;
    std::atomic<bool> cut_off_wanted_ = false;
    std::atomic<std::uint32_t> page_requests_ = 0;
    std::atomic<bool> somebody_rests_ = false;
    std::atomic<std::uint32_t> pages_requested_ = 0;
};

}  // namespace bidstore
