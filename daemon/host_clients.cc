#include "daemon/host_clients.h"

#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "shm/doorbell.h"

namespace bidstore {
namespace {

Failure system_failure(const char* what) {
    return {Error::kIoError, std::string(what) + ": " + std::strerror(errno) +
                                 " (more open files may be allowed by LimitNOFILE)"};
}

}  // namespace

Result<std::unique_ptr<HostClients>> HostClients::create() {
    std::unique_ptr<HostClients> clients(new HostClients);
    clients->doorbells_ = Descriptor(epoll_create1(EPOLL_CLOEXEC));
    if (!clients->doorbells_) return system_failure("doorbells (epoll)");
    for (Descriptor* bell : {&clients->command_bell_, &clients->event_bell_}) {
        Result<Descriptor> made = make_doorbell();
        if (!made) return made.failure();
        *bell = std::move(*made);
    }
    if (Status status = clients->add_doorbell(clients->command_bell_.number()); !status) {
        return status.failure();
    }
    return clients;
}

bool HostClients::take(ClientCommand& command) {
    // The engine does not wait for a server thread that was put aside while it held the lock: the
    // bell is rung after the lock is let go, and brings the engine here again.
    const std::unique_lock lock(command_mutex_, std::try_to_lock);
    if (!lock || commands_.empty()) return false;
    command = commands_.front();
    commands_.pop_front();
    return true;
}

void HostClients::attached(std::uint64_t client_id, Error error, std::uint64_t last_number) {
    tell({.kind = ClientEvent::Kind::kAttached,
          .client_id = client_id,
          .error = error,
          .last_number = last_number,
          .reason = {}});
}

void HostClients::detached(std::uint64_t client_id) {
    tell({.kind = ClientEvent::Kind::kDetached, .client_id = client_id, .reason = {}});
}

void HostClients::cut_off(std::uint64_t client_id, CutOff why, std::string_view reason) {
    tell({.kind = ClientEvent::Kind::kCutOff,
          .client_id = client_id,
          .why = why,
          .reason = std::string(reason)});
}

std::uint32_t HostClients::wake(std::atomic<std::uint32_t>& word, std::uint32_t bits,
                                std::uint32_t waiters_max) {
    const long woken =
        syscall(SYS_futex, &word, FUTEX_WAKE_BITSET, waiters_max, nullptr, nullptr, bits);
    return woken > 0 ? static_cast<std::uint32_t>(woken) : 0;
}

// With clients that ring faster than this sees it, it would not end. What is left rings again.
void HostClients::drain_doorbell() {
    epoll_event events[64];
    for (int turns = 0; turns < 8; ++turns) {
        if (epoll_wait(doorbells_.number(), events, 64, 0) < 64) return;
    }
}

void HostClients::send(const ClientCommand& command) {
    {
        const std::lock_guard lock(command_mutex_);
        commands_.push_back(command);
    }
    ring_doorbell(command_bell_.number());
}

bool HostClients::take_event(ClientEvent& event) {
    const std::lock_guard lock(event_mutex_);
    if (events_.empty()) return false;
    event = std::move(events_.front());
    events_.pop_front();
    return true;
}

void HostClients::clear_event_descriptor() { bidstore::drain_doorbell(event_bell_.number()); }

Status HostClients::add_doorbell(int doorbell) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (epoll_ctl(doorbells_.number(), EPOLL_CTL_ADD, doorbell, &event) != 0) {
        return system_failure("doorbell (epoll)");
    }
    return {};
}

void HostClients::remove_doorbell(int doorbell) {
    epoll_ctl(doorbells_.number(), EPOLL_CTL_DEL, doorbell, nullptr);
}

void HostClients::tell(ClientEvent event) {
    {
        const std::lock_guard lock(event_mutex_);
        events_.push_back(std::move(event));
    }
    ring_doorbell(event_bell_.number());
}

}  // namespace bidstore
