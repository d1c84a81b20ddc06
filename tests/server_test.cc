// Each step and each refusal of the handshake, what a client gets, and how it ends.
#include "daemon/server.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "clientlib/bidstore.h"
#include "shm/call_slot.h"
#include "shm/doorbell.h"
#include "tests/processes.h"
#include "tests/server_fixture.h"

namespace bidstore {
namespace {

TEST_F(ServerTest, WelcomesClientWithThreeDescriptors) {
    start();
    RawClient client(options_.socket);
    Greeting answer = handshake(client, good_hello());
    ASSERT_TRUE(answer.arrived);
    EXPECT_EQ(answer.error(), Error::kOk) << answer.welcome.message;
    ASSERT_EQ(answer.descriptors.size(), 3u);
    EXPECT_EQ(server_->client_count(), 1u);
    auto pool = PoolView::map(std::move(answer.descriptors[0]));
    ASSERT_TRUE(pool.ok()) << pool.failure().what;
    EXPECT_EQ(pool->header().instance_id, 7u);
    auto segment = ClientSegment::map(std::move(answer.descriptors[1]));
    ASSERT_TRUE(segment.ok()) << segment.failure().what;
    EXPECT_EQ(segment->header().last_number, 41u);
    EXPECT_EQ(segment->slot_count(), 4u);
}

TEST_F(ServerTest, MakesASessionForAClientWithoutOneAndKeepsTheOneItIsGiven) {
    start();
    RawClient fresh(options_.socket);
    const Greeting made = handshake(fresh, good_hello());
    Hello hello = good_hello();
    hello.session_id[3] = 9;
    RawClient returning(options_.socket);
    const Greeting kept = handshake(returning, hello);
    const SessionId none;
    EXPECT_NE(std::memcmp(made.welcome.session_id, none.bytes, 16), 0);
    EXPECT_EQ(std::memcmp(kept.welcome.session_id, hello.session_id, 16), 0);
    EXPECT_EQ(engine_->seen().back().session.bytes[3], 9);
}

TEST_F(ServerTest, GivesEachClientItsOwnSlotsAndTakesThemBackAfterDetach) {
    start();
    RawClient first(options_.socket);
    RawClient second(options_.socket);
    handshake(first, good_hello());
    handshake(second, good_hello());
    auto seen = engine_->seen();
    ASSERT_EQ(seen.size(), 2u);
    EXPECT_EQ(seen[0].segment.first_slot, 0u);
    EXPECT_EQ(seen[1].segment.first_slot, 4u);
    first.hang_up();
    ASSERT_TRUE(run_until([&] { return commands_seen(ClientCommand::Kind::kDetach) == 1; }));
    ASSERT_TRUE(run_until([&] { return server_->connection_count() == 1; }));
    RawClient third(options_.socket);
    EXPECT_EQ(handshake(third, good_hello()).error(), Error::kOk);
    EXPECT_EQ(engine_->seen().back().segment.first_slot, 0u);
}

// A client that kept the descriptor of its segment, and came again, and again, left what the daemon
// had brought in each time: the host's memory, on the daemon's account.
TEST_F(ServerTest, KeptSegmentsHoldNoMemoryOfTheDaemons) {
    options_.slots_per_client = 64;
    start();
    std::vector<ClientSegment> kept;
    for (int life = 0; life < 3; ++life) {
        RawClient client(options_.socket);
        Greeting answer = handshake(client, good_hello());
        ASSERT_EQ(answer.descriptors.size(), 3u);
        auto segment = ClientSegment::map(std::move(answer.descriptors[1]));
        ASSERT_TRUE(segment.ok());
        kept.push_back(std::move(*segment));
        client.hang_up();
        ASSERT_TRUE(run_until([&] { return server_->connection_count() == 0; }));
    }
    for (ClientSegment& segment : kept) {
        struct stat status {};
        ASSERT_EQ(fstat(segment.descriptor(), &status), 0);
        EXPECT_GT(status.st_size, 4 << 20);
        EXPECT_LE(status.st_blocks * 512, 3 * kPageBytes);
        // Who it was, and where it is in its ring, an honest client still finds.
        EXPECT_EQ(segment.header().last_number, 41u);
        EXPECT_EQ(segment.ring_control().claim.load() >> 32, 41u);
        EXPECT_EQ(segment.ring()[0], std::byte{0});
    }
}

TEST_F(ServerTest, DoorbellOfAClientWakesTheEngine) {
    start();
    RawClient client(options_.socket);
    Greeting answer = handshake(client, good_hello());
    ASSERT_EQ(answer.descriptors.size(), 3u);
    engine_.reset();  // nobody else empties the bell now
    clients_->drain_doorbell();
    pollfd bell{.fd = clients_->wake_descriptor(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&bell, 1, 0), 0);
    const std::uint64_t one = 1;
    ASSERT_EQ(write(answer.descriptors[2].number(), &one, sizeof one), 8);
    EXPECT_EQ(poll(&bell, 1, 1000), 1);
    clients_->drain_doorbell();
    EXPECT_EQ(poll(&bell, 1, 0), 0);
    engine_ = std::make_unique<EngineStandIn>(*clients_);
}

TEST_F(ServerTest, EmptiesDoorbellsForABoundedTimeAndIsWokenByTheRest) {
    auto clients = HostClients::create();
    ASSERT_TRUE(clients.ok());
    std::vector<Descriptor> bells;
    for (int i = 0; i < 600; ++i) {
        auto bell = make_doorbell();
        ASSERT_TRUE(bell.ok());
        ASSERT_TRUE((*clients)->add_doorbell(bell->number()).ok());
        ring_doorbell(bell->number());
        bells.push_back(std::move(*bell));
    }
    pollfd awake{.fd = (*clients)->wake_descriptor(), .events = POLLIN, .revents = 0};
    (*clients)->drain_doorbell();
    EXPECT_EQ(poll(&awake, 1, 0), 1);
    (*clients)->drain_doorbell();
    EXPECT_EQ(poll(&awake, 1, 0), 0);
}

// Of a thread of this process, as its kernel says.
bool sleeps(pid_t thread) {
    const std::string status =
        read_whole_file("/proc/self/task/" + std::to_string(thread) + "/status");
    return status.find("\nState:\tS") != std::string::npos;
}

// A hostile client's process, and its children, may have any number of threads asleep there.
TEST_F(ServerTest, WakesNoMoreThanItWasAskedFor) {
    start();
    std::vector<CallSlot> calls(32);
    RingControl control{};
    std::vector<std::thread> sleepers;
    std::atomic<int> woken{0};
    const std::uint64_t deadline_ns = now_ns() + 60'000'000'000;
    std::vector<std::atomic<pid_t>> threads(6);
    for (std::atomic<pid_t>& thread : threads) {
        sleepers.emplace_back([&] {
            thread = ::gettid();
            const AwaitedCall call{calls.data(), 0, 1};
            woken += wait_for_answer(control, {&call, 1}, deadline_ns);
        });
    }
    EXPECT_TRUE(eventually([&] { return control.waiters.load() == 6; }));
    for (const std::atomic<pid_t>& thread : threads) {
        EXPECT_TRUE(eventually([&] { return sleeps(thread); }));  // nothing else is to wait for
    }
    calls[0].answered_generation.store(1);
    EXPECT_EQ(clients_->wake(control.answered, ~0u, 2), 2u);
    EXPECT_TRUE(eventually([&] { return woken == 2; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(woken, 2);
    EXPECT_EQ(clients_->wake(control.answered, ~0u, 6), 4u);
    for (std::thread& thread : sleepers) thread.join();
    EXPECT_EQ(woken, 6);
}

TEST_F(ServerTest, RefusesEachWrongFieldOfTheHelloWithItsOwnError) {
    start();
    const auto refused = [&](const Hello& hello, Error error, const std::string& words) {
        RawClient client(options_.socket);
        const Greeting answer = handshake(client, hello);
        EXPECT_TRUE(answer.arrived);
        EXPECT_EQ(answer.error(), error);
        EXPECT_TRUE(answer.descriptors.empty());
        EXPECT_NE(std::string(answer.welcome.message).find(words), std::string::npos)
            << answer.welcome.message;
    };
    Hello hello = good_hello();
    hello.magic = 5;
    refused(hello, Error::kProtocol, "0000000000000005");
    hello = good_hello();
    hello.abi_version = 77;
    refused(hello, Error::kVersionMismatch, "ABI version 77");
    hello = good_hello();
    hello.fingerprint ^= 1;
    refused(hello, Error::kVersionMismatch, "fingerprint");
    hello = good_hello();
    hello.rights = 4;
    refused(hello, Error::kInvalid, "rights 4");
    EXPECT_EQ(commands_seen(ClientCommand::Kind::kAttach), 0u);
    EXPECT_EQ(counter_value(pool_->stats(), Counter::kClientsRefused), 4u);
}

TEST_F(ServerTest, RefusesAHelloOfTheWrongSize) {
    start();
    RawClient client(options_.socket);
    client.send_bytes("hello", 5);
    const Greeting answer = answer_to(client);
    EXPECT_EQ(answer.error(), Error::kProtocol);
    EXPECT_NE(std::string(answer.welcome.message).find("5 bytes"), std::string::npos);
}

TEST_F(ServerTest, GrantsNoMoreThanTheListsSay) {
    config_.admins = {};
    config_.readers = {std::to_string(geteuid())};
    start();
    RawClient writer(options_.socket);
    const Greeting denied = handshake(writer, good_hello());
    EXPECT_EQ(denied.error(), Error::kDenied);
    EXPECT_NE(std::string(denied.welcome.message).find("\"writers\""), std::string::npos);
    Hello hello = good_hello();
    hello.rights = static_cast<std::uint32_t>(Rights::kReader);
    RawClient reader(options_.socket);
    EXPECT_EQ(handshake(reader, hello).error(), Error::kOk);
    EXPECT_EQ(engine_->seen().back().rights, Rights::kReader);
}

TEST_F(ServerTest, GrantsByGroup) {
    config_.admins = {};
    config_.writers = {"@" + std::to_string(getegid())};
    start();
    RawClient client(options_.socket);
    EXPECT_EQ(handshake(client, good_hello()).error(), Error::kOk);
}

TEST_F(ServerTest, RefusesUnknownUsersOfTheConfigByName) {
    config_.writers = {"no-such-user-here"};
    const auto rules = AccessRules::resolve(config_);
    ASSERT_FALSE(rules.ok());
    EXPECT_EQ(rules.failure().what.find("writers: this host has no user \"no-such-user-here\""),
              0u);
    config_.writers = {"@no-such-group-here"};
    EXPECT_NE(AccessRules::resolve(config_).failure().what.find("no group"), std::string::npos);
}

TEST_F(ServerTest, RefusesMoreClientsThanTheLimit) {
    start();
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 3; ++i) {
        clients.push_back(std::make_unique<RawClient>(options_.socket));
        EXPECT_EQ(handshake(*clients.back(), good_hello()).error(), Error::kOk);
    }
    RawClient one_too_many(options_.socket);
    const Greeting answer = handshake(one_too_many, good_hello());
    EXPECT_EQ(answer.error(), Error::kTooManyClients);
    EXPECT_NE(std::string(answer.welcome.message).find("max_clients = 3"), std::string::npos);
}

TEST_F(ServerTest, KeepsPlacesForAdminsAndForOtherUsers) {
    config_.admins = {};
    config_.writers = {std::to_string(geteuid())};
    options_.max_clients = 16;
    options_.max_clients_per_user = 0;
    start();
    std::vector<std::unique_ptr<RawClient>> clients;
    const auto next = [&] {
        clients.push_back(std::make_unique<RawClient>(options_.socket));
        return handshake(*clients.back(), good_hello());
    };
    for (int i = 0; i < 15; ++i) ASSERT_EQ(next().error(), Error::kOk) << i;
    const Greeting last = next();
    EXPECT_EQ(last.error(), Error::kTooManyClients);
    EXPECT_NE(std::string(last.welcome.message).find("kept for admins"), std::string::npos);
    clients.clear();
    engine_.reset();
    server_.reset();
    options_.max_clients_per_user = 2;
    start();
    for (int i = 0; i < 2; ++i) ASSERT_EQ(next().error(), Error::kOk) << i;
    const Greeting third = next();
    EXPECT_EQ(third.error(), Error::kTooManyClients);
    EXPECT_NE(std::string(third.welcome.message).find("max_clients_per_user = 2"),
              std::string::npos);
    clients.clear();
    engine_.reset();
    server_.reset();
    config_.admins = {std::to_string(geteuid())};
    start();
    for (int i = 0; i < 16; ++i) ASSERT_EQ(next().error(), Error::kOk) << i;
    EXPECT_EQ(next().error(), Error::kTooManyClients);
}

// Anyone may pass a descriptor whose last close takes as long as they like. It must be nobody's
// that others wait for: not when it is read, nor with the connection that it was passed through.
TEST_F(ServerTest, NobodyWaitsForWhatAClientPassedOnToBeClosed) {
    constexpr std::chrono::seconds kLinger{4};
    start();
    std::vector<Lingering> lingering;
    const auto pass = [&](RawClient& client, bool nested) {
        Lingering& made = lingering.emplace_back(kLinger);
        if (!nested) {
            client.pass({made.connection.number()});
        } else {
            int pair[2] = {-1, -1};
            ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
            const Descriptor one(pair[0]);
            const Descriptor other(pair[1]);
            ASSERT_TRUE(
                send_descriptors(one, std::vector<std::byte>(1), {made.connection.number()}));
            client.pass({other.number()});
        }
        made.connection = Descriptor();  // the last hold on it is in the daemon's socket
    };
    const auto undisturbed = [&](const char* what) {
        const std::uint64_t begin_ns = now_ns();
        RawClient honest(options_.socket);
        EXPECT_EQ(handshake(honest, good_hello()).error(), Error::kOk) << what;
        honest.hang_up();
        EXPECT_TRUE(run_until([&] { return server_->client_count() == 0; })) << what;
        const std::chrono::nanoseconds took(now_ns() - begin_ns);
        EXPECT_LT(took, kLinger / 2) << what;
    };
    RawClient passes(options_.socket);
    pass(passes, false);
    undisturbed("a descriptor before the hello");
    RawClient nests(options_.socket);
    pass(nests, true);
    undisturbed("a descriptor within another");
    RawClient unread(options_.socket);
    unread.send_bytes("hello", 5);
    for (int i = 0; i < 3; ++i) pass(unread, i == 1);
    undisturbed("descriptors that nobody read");
    RawClient welcomed(options_.socket);
    EXPECT_EQ(handshake(welcomed, good_hello()).error(), Error::kOk);
    pass(welcomed, false);
    undisturbed("a descriptor of a client");
    // Those that were not accepted go with the listener.
    RawClient late(options_.socket);
    pass(late, false);
    const std::uint64_t begin_ns = now_ns();
    server_.reset();
    EXPECT_LT(std::chrono::nanoseconds(now_ns() - begin_ns), kLinger / 2);
}

TEST_F(ServerTest, LetsNobodyInWhileTooManyConnectionsCannotBeClosed) {
    options_.unclosed_max = 3;
    start();
    std::size_t most = 0;
    std::vector<Lingering> lingering;
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 10; ++i) {
        clients.push_back(std::make_unique<RawClient>(options_.socket));
        Lingering& made = lingering.emplace_back(std::chrono::seconds(60));
        clients.back()->pass({made.connection.number()});
        made.connection = Descriptor();
        const Greeting answer = answer_to(*clients.back());
        EXPECT_EQ(answer.error(), Error::kProtocol);
        EXPECT_NE(std::string(answer.welcome.message).find("descriptors"), std::string::npos);
        most = std::max(most, server_->unclosed_count());
    }
    EXPECT_LE(most, 3u);
    RawClient honest(options_.socket);
    EXPECT_EQ(handshake(honest, good_hello()).error(), Error::kOk);
    EXPECT_TRUE(run_until([&] { return server_->unclosed_count() == 0; }));
}

// Each time that so many were on their way the log said that they could not be closed, and nobody
// was let in for a while.
TEST_F(ServerTest, OnlyConnectionsThatAreNotClosedForLongAreSaidToHang) {
    options_.unclosed_max = 1;
    const auto come_and_go = [&] {
        testing::internal::CaptureStderr();
        for (int i = 0; i < 500; ++i) {
            RawClient(options_.socket).hang_up();
            server_->run_once(0);
        }
        EXPECT_TRUE(run_until([&] { return server_->connection_count() == 0; }));
        return testing::internal::GetCapturedStderr();
    };
    options_.slow_close_ns = 60'000'000'000;
    start();
    EXPECT_EQ(come_and_go(), "");
    engine_.reset();
    server_.reset();
    options_.slow_close_ns = 0;
    start();
    EXPECT_NE(come_and_go().find("cannot be closed"), std::string::npos);
}

// A Welcome that nobody reads keeps its descriptors in flight, on the account of the daemon's user,
// also when the daemon has hung up: 21,850 of them were as many as that user may have.
TEST_F(ServerTest, LetsNoUserInWhoLeavesTooManyWelcomesUnread) {
    options_.max_clients = 64;
    start();
    std::vector<std::unique_ptr<RawClient>> clients;
    const auto let_in = [&] {
        clients.push_back(std::make_unique<RawClient>(options_.socket));
        const std::size_t before = commands_seen(ClientCommand::Kind::kAttach);
        clients.back()->send(good_hello());
        EXPECT_TRUE(run_until([&] { return clients.back()->readable(); }));
        return commands_seen(ClientCommand::Kind::kAttach) > before;
    };
    // Welcomed, and cut off for what it says then.
    const auto leave_unread = [&] {
        if (!let_in()) return false;
        clients.back()->send(good_hello());
        return run_until([&] { return server_->connection_count() == 0; });
    };
    for (std::size_t i = 0; i < UnreadWelcomes::kPerUser; ++i) ASSERT_TRUE(leave_unread()) << i;
    EXPECT_EQ(server_->unread_count(), UnreadWelcomes::kPerUser);
    ASSERT_FALSE(let_in());
    const Greeting answer = clients.back()->receive();
    EXPECT_EQ(answer.error(), Error::kTooManyClients);
    EXPECT_NE(std::string(answer.welcome.message).find("not read"), std::string::npos);
    EXPECT_TRUE(answer.descriptors.empty());
    EXPECT_EQ(clients[0]->receive().descriptors.size(), 3u);
    EXPECT_TRUE(leave_unread());
    EXPECT_FALSE(let_in());
    clients[1]->hang_up();
    EXPECT_TRUE(let_in());
    clients.clear();
    ASSERT_TRUE(run_until([&] { return server_->connection_count() == 0; }));
    EXPECT_TRUE(let_in());
    EXPECT_EQ(server_->unread_count(), 0u);
}

// Those of clients were not counted: one user had as many in flight as there are places, and with
// the ones of ended connections more. That a neighbour is slow for a moment refuses nobody.
TEST_F(ServerTest, LetsNoUserInWhoseClientsLeaveTheirWelcomesUnreadForLong) {
    options_.max_clients = 64;
    constexpr std::size_t kSent = UnreadWelcomes::kPerUser + 4;
    options_.slow_welcome_ns = 2'000'000'000;
    start();
    std::vector<std::unique_ptr<RawClient>> clients;
    const auto answer_to_next = [&] {
        clients.push_back(std::make_unique<RawClient>(options_.socket));
        clients.back()->send(good_hello());
        EXPECT_TRUE(run_until([&] { return clients.back()->readable(); }));
    };
    for (std::size_t i = 0; i < kSent; ++i) answer_to_next();
    EXPECT_EQ(server_->client_count(), kSent);
    std::this_thread::sleep_for(std::chrono::nanoseconds(options_.slow_welcome_ns));
    answer_to_next();
    const Greeting refused = clients.back()->receive();
    EXPECT_EQ(refused.error(), Error::kTooManyClients);
    EXPECT_NE(std::string(refused.welcome.message).find("not read"), std::string::npos);
    for (std::size_t i = 0; i <= UnreadWelcomes::kPerUser; ++i) {
        EXPECT_EQ(clients[i]->receive().error(), Error::kOk) << i;
    }
    answer_to_next();
    EXPECT_EQ(clients.back()->receive().error(), Error::kOk);
}

// Connections that said nothing, of a user without any rights, had all places of the handshake for
// as long as it may take, and again, and again.
TEST_F(ServerTest, SilentConnectionsMakePlaceForOneThatSpeaks) {
    options_.handshake_timeout_ns = 60'000'000'000;
    start();
    std::vector<std::unique_ptr<RawClient>> silent;
    for (int i = 0; i < 200; ++i) {
        silent.push_back(std::make_unique<RawClient>(options_.socket));
        ASSERT_TRUE(silent.back()->connected);
    }
    RawClient client(options_.socket);
    EXPECT_EQ(handshake(client, good_hello()).error(), Error::kOk);
    EXPECT_LT(server_->connection_count(), 100u);
    ASSERT_TRUE(silent.front()->readable());
    EXPECT_EQ(silent.front()->receive().error(), Error::kBusy);
}

// One user's had all places, and went no faster than so many in the time that one has for its
// hello.
TEST_F(ServerTest, OfOneUsersSilentConnectionsOnlyTheNewestStay) {
    options_.handshake_timeout_ns = 60'000'000'000;
    options_.max_clients = 4096;
    start();
    std::vector<std::unique_ptr<RawClient>> clients;
    const auto connect = [&](int count) {
        for (int i = 0; i < count; ++i) {
            clients.push_back(std::make_unique<RawClient>(options_.socket));
            ASSERT_TRUE(clients.back()->connected);
        }
        server_->run_once(0);  // hears of them
        for (int rounds = 0; rounds <= count / 64; ++rounds) server_->run_once(0);
    };
    connect(200);
    EXPECT_EQ(server_->connection_count(), 32u);
    EXPECT_EQ(server_->wait_ns(1'000'000), 1'000'000u);
    for (std::size_t i = 0; i < 168; ++i) {
        ASSERT_TRUE(clients[i]->readable()) << i;
        EXPECT_EQ(clients[i]->receive().error(), Error::kBusy);
    }
}

// Nobody has looked at what they say when the next one comes.
TEST_F(ServerTest, ManyClientsOfOneUserMayComeAtOnce) {
    options_.max_clients = 40;
    start();
    std::vector<std::unique_ptr<RawClient>> clients;
    for (std::uint32_t i = 0; i < options_.max_clients; ++i) {
        clients.push_back(std::make_unique<RawClient>(options_.socket));
        clients.back()->send(good_hello());
    }
    for (const auto& client : clients) EXPECT_EQ(answer_to(*client).error(), Error::kOk);
}

TEST_F(ServerTest, ClosesAConnectionThatSaysNothing) {
    options_.handshake_timeout_ns = 30'000'000;
    start();
    RawClient client(options_.socket);
    const Greeting answer = answer_to(client);
    EXPECT_EQ(answer.error(), Error::kTimedOut);
}

TEST_F(ServerTest, GivesUpOnAnEngineThatDoesNotAnswerInTime) {
    options_.handshake_timeout_ns = 100'000'000;
    start();
    engine_->silent = true;
    RawClient client(options_.socket);
    EXPECT_EQ(handshake(client, good_hello()).error(), Error::kBusy);
    EXPECT_TRUE(run_until([&] { return commands_seen(ClientCommand::Kind::kDetach) == 1; }));
}

// Those who try again would have all places until it goes on, and others be told that these are
// taken, which is final.
TEST_F(ServerTest, AsksALateEngineForNoMorePlacesUntilItGoesOn) {
    options_.handshake_timeout_ns = 100'000'000;
    start();
    engine_->held_up = true;
    for (std::uint32_t i = 0; i < 2 * options_.max_clients; ++i) {
        RawClient client(options_.socket);
        EXPECT_EQ(handshake(client, good_hello()).error(), Error::kBusy) << i;
    }
    engine_->held_up = false;
    EXPECT_TRUE(run_until([&] { return server_->connection_count() == 0; }));
    EXPECT_EQ(commands_seen(ClientCommand::Kind::kAttach), 1u);
    RawClient client(options_.socket);
    EXPECT_EQ(handshake(client, good_hello()).error(), Error::kOk);
}

// It failed at once, though its deadline was far away and the refusal said "try again".
TEST_F(ServerTest, TheLibraryTriesALateEngineAgainUntilItsDeadline) {
    constexpr std::chrono::milliseconds kShort{500};
    options_.handshake_timeout_ns = 50'000'000;
    start();
    engine_->held_up = true;
    const auto refused = [&] { return counter_value(pool_->stats(), Counter::kClientsRefused); };
    const auto attach_within = [&](std::chrono::nanoseconds time, bool goes_on) {
        std::atomic<bool> over{false};
        std::string outcome;
        std::thread client([&] {
            const auto store = Store::attach({.socket = options_.socket}, in(time));
            outcome = error_name(store.error());
            over = true;
        });
        const std::uint64_t before = refused();
        EXPECT_TRUE(run_until([&] {
            if (goes_on && refused() >= before + 3) engine_->held_up = false;
            return over.load();
        }));
        client.join();
        return outcome;
    };
    // Its deadline may come in the middle of an attempt, but does not each time.
    std::string outcome(error_name(Error::kTimedOut));
    for (int i = 0; i < 10 && outcome == error_name(Error::kTimedOut); ++i) {
        const auto begin = std::chrono::steady_clock::now();
        outcome = attach_within(kShort, false);
        EXPECT_GE(std::chrono::steady_clock::now() - begin, kShort);
    }
    EXPECT_EQ(outcome, error_name(Error::kBusy));
    EXPECT_EQ(attach_within(std::chrono::seconds(30), true), error_name(Error::kOk));
}

TEST_F(ServerTest, PassesOnTheRefusalOfTheEngine) {
    start();
    engine_->answer = Error::kBusy;
    RawClient client(options_.socket);
    EXPECT_EQ(handshake(client, good_hello()).error(), Error::kBusy);
    EXPECT_EQ(server_->client_count(), 0u);
}

TEST_F(ServerTest, CutsOffAClientThatTalksAfterItsHandshake) {
    start();
    RawClient client(options_.socket);
    handshake(client, good_hello());
    client.send(good_hello());
    EXPECT_TRUE(run_until([&] { return commands_seen(ClientCommand::Kind::kDetach) == 1; }));
    EXPECT_EQ(server_->client_count(), 0u);
}

// It was taken for a hangup: who sent one was gone, and neither log nor stats said why.
TEST_F(ServerTest, AnEmptyMessageIsAMessage) {
    start();
    RawClient silent(options_.socket);
    silent.send_bytes("", 0);
    const Greeting answer = answer_to(silent);
    EXPECT_EQ(answer.error(), Error::kProtocol);
    EXPECT_NE(std::string(answer.welcome.message).find("0 bytes"), std::string::npos);
    RawClient talks(options_.socket);
    RawClient leaves(options_.socket);
    handshake(talks, good_hello());
    handshake(leaves, good_hello());
    testing::internal::CaptureStderr();
    talks.send_bytes("", 0);
    EXPECT_TRUE(run_until([&] { return commands_seen(ClientCommand::Kind::kDetach) == 1; }));
    leaves.hang_up();
    EXPECT_TRUE(run_until([&] { return commands_seen(ClientCommand::Kind::kDetach) == 2; }));
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("cut off: it sent bytes after its handshake"), std::string::npos) << log;
    EXPECT_EQ(counter_value(pool_->stats(), Counter::kClientsDropped), 1u);
}

TEST_F(ServerTest, CutsOffAClientWhenTheEngineSaysSo) {
    start();
    RawClient client(options_.socket);
    handshake(client, good_hello());
    clients_->cut_off(engine_->seen().back().client_id, CutOff::kHostile, "nonsense in its ring");
    EXPECT_TRUE(run_until([&] { return commands_seen(ClientCommand::Kind::kDetach) == 1; }));
    EXPECT_TRUE(client.readable());  // its end of the connection is closed
    EXPECT_EQ(counter_value(pool_->stats(), Counter::kClientsDropped), 1u);
}

TEST_F(ServerTest, SurvivesAHangupAtEachPointOfTheHandshake) {
    start();
    for (int round = 0; round < 20; ++round) {
        RawClient silent(options_.socket);
        RawClient hasty(options_.socket);
        hasty.send(good_hello());
        if (round % 2 == 0) server_->run_once(1'000'000);
        silent.hang_up();
        hasty.hang_up();
        server_->run_once(1'000'000);
    }
    EXPECT_TRUE(run_until([&] {
        return commands_seen(ClientCommand::Kind::kDetach) ==
               commands_seen(ClientCommand::Kind::kAttach);
    }));
    ASSERT_TRUE(run_until([&] { return server_->connection_count() == 0; }));
    RawClient client(options_.socket);
    EXPECT_EQ(handshake(client, good_hello()).error(), Error::kOk);
}

// Clients with short deadlines come back before the daemon is through with what they left behind:
// made for each, a segment took longer than they wait.
TEST_F(ServerTest, MakesNothingForAClientThatIsGoneWhenItsHelloIsRead) {
    start();
    for (int i = 0; i < 20; ++i) {
        RawClient hasty(options_.socket);
        hasty.send(good_hello());
        hasty.hang_up();
    }
    RawClient patient(options_.socket);
    EXPECT_EQ(handshake(patient, good_hello()).error(), Error::kOk);
    EXPECT_TRUE(run_until([&] { return server_->connection_count() == 1; }));
    EXPECT_EQ(commands_seen(ClientCommand::Kind::kAttach), 1u);
    EXPECT_EQ(counter_value(pool_->stats(), Counter::kClientsRefused), 0u);
}

TEST_F(ServerTest, SocketHasTheModeOfTheConfig) {
    options_.socket_mode = 0640;
    start();
    struct stat found {};
    ASSERT_EQ(stat(options_.socket.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777, 0640u);
}

TEST_F(ServerTest, TakesOverAStaleSocketButNotALiveOneNorAFile) {
    start();
    auto second = open_server();
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error(), Error::kLocked);
    // A daemon that was killed leaves its socket behind.
    server_->stop_accepting();
    {
        const Descriptor dead(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        options_.socket.copy(address.sun_path, sizeof address.sun_path - 1);
        const void* general = &address;
        ASSERT_EQ(bind(dead.number(), static_cast<const sockaddr*>(general), sizeof address), 0);
    }
    auto third = open_server();
    EXPECT_TRUE(third.ok()) << third.failure().what;
    (*third)->stop_accepting();
    std::ofstream(options_.socket) << "precious";
    auto fourth = open_server();
    ASSERT_FALSE(fourth.ok());
    EXPECT_EQ(fourth.error(), Error::kInvalid);
    EXPECT_TRUE(std::filesystem::is_regular_file(options_.socket));
}

// The daemon waits elsewhere, and let those that were left wait for as long as it liked.
TEST_F(ServerTest, SaysThatConnectionsWaitAndThatNoneDoOnceItStops) {
    start();
    constexpr std::uint64_t kWaitNs = 5'000'000;
    EXPECT_EQ(server_->wait_ns(kWaitNs), kWaitNs);
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 300; ++i) clients.push_back(std::make_unique<RawClient>(options_.socket));
    server_->run_once(kWaitNs);
    EXPECT_EQ(server_->wait_ns(kWaitNs), 0u);
    server_->stop_accepting();
    EXPECT_EQ(server_->wait_ns(kWaitNs), kWaitNs);
}

TEST_F(ServerTest, StopAcceptingKeepsClientsAndRemovesThePath) {
    start();
    RawClient client(options_.socket);
    handshake(client, good_hello());
    server_->stop_accepting();
    server_->run_once(1'000'000);
    EXPECT_EQ(server_->client_count(), 1u);
    EXPECT_FALSE(std::filesystem::exists(options_.socket));
    EXPECT_FALSE(RawClient(options_.socket).connected);
}

}  // namespace
}  // namespace bidstore
