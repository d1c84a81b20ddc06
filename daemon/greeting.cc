#include "daemon/greeting.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstring>
#include <string>

namespace bidstore {
namespace {

constexpr std::size_t kWelcomeDescriptors = 3;

std::string hex(std::uint64_t value) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(value >> shift) & 15];
    return text;
}

}  // namespace

Status check_hello(const Hello& hello) {
    if (hello.magic != kHelloMagic) {
        return {Error::kProtocol, "hello begins with " + hex(hello.magic) + ", not " +
                                      hex(kHelloMagic) + ": this is not a bidstore program"};
    }
    if (hello.abi_version != kAbiVersion) {
        return {Error::kVersionMismatch, "the program speaks ABI version " +
                                             std::to_string(hello.abi_version) + ", the daemon " +
                                             std::to_string(kAbiVersion) +
                                             ": build the program against the daemon's version"};
    }
    if (hello.fingerprint != kLayoutFingerprint) {
        return {Error::kVersionMismatch,
                "the program's layout fingerprint is " + hex(hello.fingerprint) +
                    ", the daemon's " + hex(kLayoutFingerprint) + ": build both from one version"};
    }
    if (hello.rights < 1 || hello.rights > static_cast<std::uint32_t>(Rights::kAdmin)) {
        return {Error::kInvalid, "rights " + std::to_string(hello.rights) +
                                     " asked for: 1 (reader), 2 (writer) and 3 (admin) exist"};
    }
    return {};
}

Welcome make_welcome(Error error, const SessionId& session, std::string_view message) {
    Welcome welcome{};
    welcome.magic = kHelloMagic;
    welcome.abi_version = kAbiVersion;
    welcome.error = static_cast<std::uint32_t>(error);
    welcome.fingerprint = kLayoutFingerprint;
    std::memcpy(welcome.session_id, session.bytes, sizeof welcome.session_id);
    message.copy(welcome.message, sizeof welcome.message - 1);
    return welcome;
}

bool send_welcome(int socket, const Welcome& welcome, const std::vector<int>& descriptors) {
    iovec part{.iov_base = const_cast<Welcome*>(&welcome), .iov_len = sizeof welcome};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kWelcomeDescriptors)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
        const std::size_t bytes = descriptors.size() * sizeof(int);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(bytes);
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(bytes);
        std::memcpy(CMSG_DATA(header), descriptors.data(), bytes);
    }
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) ==
           static_cast<ssize_t>(sizeof welcome);
}

}  // namespace bidstore
